# A static binary and nothing else: no shell, no libc. It runs as an unprivileged user.
#
#   docker build -t dotproxy .
#   docker run --rm -p 53:53/udp -p 53:53/tcp dotproxy -u 1.1.1.1:853
#
# For other processors: docker buildx build --platform linux/amd64,linux/arm64,linux/arm/v7 .

FROM rust:1.95-alpine AS build
# ring is partly C and assembly. The release of the image determines the versions.
# hadolint ignore=DL3018
RUN apk add --no-cache gcc musl-dev
WORKDIR /dotproxy
COPY Cargo.toml Cargo.lock build.rs ./
COPY src ./src
COPY wire ./wire
# On Alpine, Rust links musl statically.
RUN cargo build --release --locked --bin dotproxy

FROM scratch
LABEL org.opencontainers.image.title="dotproxy" \
    org.opencontainers.image.description="Plain DNS in, authenticated DNS over TLS out" \
    org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /dotproxy/target/release/dotproxy /dotproxy
USER 65532:65532
EXPOSE 53/udp 53/tcp
# On SIGTERM, it answers the waiting queries and exits.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s CMD ["/dotproxy", "--probe", "http://127.0.0.1:9153/healthz"]
# `--http-listen 0.0.0.0:9153` or `--http-listen :9153` on the command line replaces this address.
ENTRYPOINT ["/dotproxy", "--http-listen=127.0.0.1:9153"]
CMD ["--help"]

# A static binary on nothing: no shell, no libc, no user but one without a name.
#
#   docker build -t dotproxy .
#   docker run --rm -p 53:53/udp -p 53:53/tcp dotproxy -u 1.1.1.1:853
#
# For other processors: docker buildx build --platform linux/amd64,linux/arm64,linux/arm/v7 .

FROM rust:1.95-alpine AS build
# ring is partly C and assembly. The image's release decides about versions.
# hadolint ignore=DL3018
RUN apk add --no-cache gcc musl-dev
WORKDIR /dotproxy
COPY Cargo.toml Cargo.lock build.rs ./
COPY src ./src
COPY wire ./wire
# On this system Rust links musl statically.
RUN cargo build --release --locked --bin dotproxy

FROM scratch
LABEL org.opencontainers.image.title="dotproxy" \
    org.opencontainers.image.description="Plain DNS in, authenticated DNS over TLS out" \
    org.opencontainers.image.licenses="MIT OR Apache-2.0"
COPY --from=build /dotproxy/target/release/dotproxy /dotproxy
USER 65532:65532
EXPOSE 53/udp 53/tcp
# It answers SIGTERM by finishing what is in flight.
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s CMD ["/dotproxy", "--probe", "http://127.0.0.1:9153/healthz"]
ENTRYPOINT ["/dotproxy", "--http-listen=127.0.0.1:9153"]
CMD ["--help"]

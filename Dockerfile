# A static binary on nothing: no shell, no libc, no user but one without a name.
#
#   docker build -t dotproxy .
#   docker run --rm -p 53:53/udp -p 53:53/tcp dotproxy -u 1.1.1.1:853

FROM rust:1.95-alpine AS build
# ring is partly C and assembly. The image's release decides about versions.
# hadolint ignore=DL3018
RUN apk add --no-cache gcc musl-dev
WORKDIR /dotproxy
COPY Cargo.toml Cargo.lock build.rs ./
COPY src ./src
# On this system Rust links musl statically.
RUN cargo build --release --locked --bin dotproxy

FROM scratch
COPY --from=build /dotproxy/target/release/dotproxy /dotproxy
USER 65532:65532
EXPOSE 53/udp 53/tcp
# It answers SIGTERM by finishing what is in flight.
STOPSIGNAL SIGTERM
ENTRYPOINT ["/dotproxy"]
CMD ["--help"]

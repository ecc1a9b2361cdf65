# The program in one small image: server, executor and command line.
#
#   docker build -t executr .

FROM rust:1.95-slim-bookworm AS build
WORKDIR /source
COPY . .
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/source/target \
    cargo build --locked --release --package executr-cli \
    && install -D target/release/executr /out/executr

FROM debian:bookworm-slim
# Certificates for downloads over HTTPS; nothing else is needed at run time.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --uid 10001 --home-dir /var/lib/executr --create-home --shell /usr/sbin/nologin executr \
    # Volumes mounted here start out as the user's own.
    && install -d -o executr -g executr -m 0700 /tokens/admin /tokens/execute
COPY --from=build /out/executr /usr/local/bin/executr
USER 10001
WORKDIR /var/lib/executr
ENV HOME=/var/lib/executr
EXPOSE 8080
ENTRYPOINT ["executr"]
CMD ["--help"]

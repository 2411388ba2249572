# edgeway as a container image: `docker build -t edgeway .`
#
#   docker run -p 8080:8080 -v "$PWD/edgeway.yaml:/etc/edgeway/edgeway.yaml:ro" edgeway
#
# SIGHUP (`docker kill -s HUP NAME`) reads the document anew; SIGTERM (`docker stop -t 40 NAME`) lets connections finish,
# for as long as `runtime.drain` says: give `docker stop` a little longer than that.

FROM rust:1.95-bookworm AS build
# Pingora's zlib is built with cmake; the rest that building needs is in the base image.
RUN apt-get update -q \
    && apt-get install -y -q --no-install-recommends cmake \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY . .
# Downloads and object files stay on the builder, so that a change in the code compiles only that.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --bin edgeway \
    && install -D -m 755 target/release/edgeway /out/edgeway

FROM debian:bookworm-slim
RUN groupadd --system --gid 65532 edgeway \
    && useradd --system --uid 65532 --gid 65532 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin edgeway
COPY --from=build /out/edgeway /usr/local/bin/edgeway
# Answers until a document of yours takes its place.
COPY conf/container.yaml /etc/edgeway/edgeway.yaml
USER 65532:65532
# An unprivileged port: nothing here needs root or a capability. Publish it as 80 if that is what clients call.
EXPOSE 8080
STOPSIGNAL SIGTERM
# Asks the admin listener inside the container whether the gateway serves. ADMIN says where that is when a document of
# yours puts it elsewhere; `docker run --no-healthcheck` is for one that has none.
ENV ADMIN=127.0.0.1:9900
HEALTHCHECK --interval=10s --timeout=6s --start-period=5s --retries=3 CMD ["sh", "-c", "exec edgeway health \"$ADMIN\""]
ENTRYPOINT ["/usr/local/bin/edgeway"]
CMD ["run", "/etc/edgeway/edgeway.yaml"]

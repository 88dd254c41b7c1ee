# Two images over one base, so that nothing but python:3.11-slim is ever pulled:
#   docker build --tag operation-service .                  the service (the last stage, and so the default)
#   docker build --tag operation-etcd --target etcd .       the etcd of compose.yaml
# A package index of one's own comes in without leaving a trace: --secret id=pip_conf,src=pip.conf
FROM python:3.11-slim AS base


FROM base AS etcd
# Not pinned: Debian serves only the newest build of a release, so a pin breaks at its next update. Debian 12 has etcd
# 3.4.23 and Debian 13 has 3.5.16; neither loses acknowledged writes when it is killed, as 3.5.0 to 3.5.4 can.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends etcd-client etcd-server \
 && rm -rf /var/lib/apt/lists/* \
 && install --directory --owner=10001 --group=10001 --mode=0700 /data
# As the service starts its embedded etcd: an hour of history, for so long a watch that broke can be resumed, and 4 GiB.
# The peer port stays on loopback: one member has no peers.
ENV ETCD_NAME=etcd \
    ETCD_DATA_DIR=/data \
    ETCD_LISTEN_CLIENT_URLS=http://0.0.0.0:2379 \
    ETCD_ADVERTISE_CLIENT_URLS=http://etcd:2379 \
    ETCD_LISTEN_PEER_URLS=http://127.0.0.1:2380 \
    ETCD_AUTO_COMPACTION_MODE=periodic \
    ETCD_AUTO_COMPACTION_RETENTION=1h \
    ETCD_QUOTA_BACKEND_BYTES=4294967296 \
    ETCD_LOGGER=zap \
    ETCDCTL_API=3
USER 10001:10001
VOLUME /data
EXPOSE 2379
STOPSIGNAL SIGTERM
ENTRYPOINT ["etcd"]


# What changes seldom: a virtual environment with the dependencies, and one with the tools that build our wheel.
FROM base AS dependencies
WORKDIR /build
COPY requirements requirements
# Versions and hashes are those of `make lock`, whatever index serves them. --only-binary: what has no wheel for this
# platform fails here, rather than asking for a compiler.
RUN --mount=type=secret,id=pip_conf,target=/etc/pip.conf \
    python3 -m venv --without-pip /opt/operation-service \
 && python3 -m pip --python /opt/operation-service/bin/python install \
      --no-cache-dir --no-deps --only-binary=:all: --require-hashes --requirement requirements/image.txt \
 && python3 -m venv --without-pip /tools \
 && python3 -m pip --python /tools/bin/python install \
      --no-cache-dir --no-deps --only-binary=:all: --require-hashes --requirement requirements/build.txt


# What changes often: the code. Nothing is fetched any more.
FROM dependencies AS code
COPY pyproject.toml README.md LICENSE THIRD_PARTY_NOTICES.md ./
COPY src src
# The wheel is laid out under /code as it shall lie in the environment, so that it becomes a layer of its own.
RUN python3 -m pip --python /tools/bin/python wheel \
      --no-cache-dir --no-index --no-deps --no-build-isolation --wheel-dir /dist . \
 && python3 -m pip --python /opt/operation-service/bin/python install \
      --no-cache-dir --no-index --no-deps --no-warn-script-location --prefix /code /dist/*.whl


# There is no etcd in here on purpose: a container's own etcd would lose the locks with the container. Started without
# OPERATION_SERVICE_ETCD_ENDPOINTS the service says that there is none, and ends. So it does without a certificate, since
# it listens to others: OPERATION_SERVICE_TLS_CERT and OPERATION_SERVICE_TLS_KEY name one, in files that are mounted and
# that the user 10001 can read; OPERATION_SERVICE_INSECURE=1 says that there shall be none.
FROM base AS service
RUN groupadd --gid 10001 operation-service \
 && useradd --no-log-init --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin \
      operation-service
# Two layers, so that a new version of the code ships some hundred kilobytes. The byte code is in them: the user of the
# running service could not write it.
COPY --from=dependencies /opt/operation-service /opt/operation-service
COPY --from=code /code /opt/operation-service
COPY LICENSE THIRD_PARTY_NOTICES.md /usr/share/doc/operation-service/
ENV PATH=/opt/operation-service/bin:$PATH \
    OPERATION_SERVICE_LISTEN=0.0.0.0:50051 \
    OPERATION_SERVICE_HEALTH_LISTEN=127.0.0.1:50052
# By number, so that Kubernetes can see that it is not root (runAsNonRoot).
USER 10001:10001
EXPOSE 50051
STOPSIGNAL SIGTERM
# It asks grpc.health.v1 where that is told without TLS: unhealthy also while etcd is out of reach.
HEALTHCHECK --interval=10s --timeout=5s --start-period=15s --retries=3 \
  CMD ["sh", "-c", "exec operation-service health --listen \"$OPERATION_SERVICE_HEALTH_LISTEN\""]
ENTRYPOINT ["operation-service"]
CMD ["serve"]
# Last, because they change with every build.
ARG VERSION=unknown
ARG REVISION=unknown
LABEL org.opencontainers.image.title="n0stack operation service" \
      org.opencontainers.image.description="Hands out the right to operate on n0stack's resources, over gRPC, kept in etcd" \
      org.opencontainers.image.licenses="BSD-2-Clause" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}"

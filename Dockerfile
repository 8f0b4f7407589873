# Two images:
#   docker build -t drayman .                             the program
#   docker build -t drayman-dev --target dev .            the fake shop and the
#     rest of bin/drayman-dev; compiles a Temporal server, which takes minutes
# Debian's image and not Alpine's: its CA certificates go into ours.
FROM golang:1.26.8-bookworm AS source
WORKDIR /src
ENV CGO_ENABLED=0 GOTOOLCHAIN=local
COPY go.mod go.sum ./
RUN go mod download
COPY . .

FROM source AS build-dev
RUN go build -C dev -trimpath -o /out/drayman-dev . && mkdir -p /out/data

FROM scratch AS dev
COPY --from=build-dev /out/drayman-dev /drayman-dev
COPY --from=build-dev --chown=65532:65532 /out/data /data
USER 65532:65532
ENTRYPOINT ["/drayman-dev"]
CMD ["shop", "--addr", "0.0.0.0:8090", "--data", "/data"]

FROM source AS build
ARG VERSION=dev
RUN go build -trimpath -ldflags "-s -w -X drayman/cmd.Version=${VERSION}" -o /out/drayman ./cmd/drayman

# Nothing but the program: no shell, no packages to keep up to date. Time zones
# are compiled in.
FROM scratch AS drayman
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/drayman /drayman
USER 65532:65532
ENTRYPOINT ["/drayman"]

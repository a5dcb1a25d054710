# The server on the CPU:
#   docker build -f containers/cpu.Dockerfile -t llama-kivi .
#   docker run -p 8080:8080 -v "$PWD/models:/models" llama-kivi -m /models/FILE.gguf
FROM mcr.microsoft.com/dotnet/sdk:10.0 AS build
RUN apt-get update && apt-get install -y --no-install-recommends g++ cmake make && rm -rf /var/lib/apt/lists/*
WORKDIR /source
COPY . .
RUN dotnet publish src/LlamaKivi.Cli -c Release --use-current-runtime --self-contained false -o /app

FROM mcr.microsoft.com/dotnet/aspnet:10.0
COPY --from=build /app /app
USER $APP_UID
EXPOSE 8080
ENTRYPOINT ["/app/llama-kivi", "serve", "--host", "0.0.0.0", "--port", "8080"]

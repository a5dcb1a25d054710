// An OpenAI-compatible server: dotnet run -- --urls=http://127.0.0.1:8080 --LlamaKivi:ModelPath=model.gguf --LlamaKivi:KvCache=kivi2
WebApplicationBuilder builder = WebApplication.CreateSlimBuilder(args);
builder.Services.AddLlamaKivi(builder.Configuration.GetSection("LlamaKivi"));
WebApplication app = builder.Build();
app.MapLlamaKivi();
app.Run();

// The service as a resource of Aspire: its health, metrics and traces show in the dashboard.
// dotnet run --project samples/Aspire/AppHost

IDistributedApplicationBuilder builder = DistributedApplication.CreateBuilder(args);
string model = builder.Configuration["Model"] ?? Path.GetFullPath(Path.Combine(builder.AppHostDirectory, "../../../models/kivi-demo-llama-37m-q4_k_m.gguf"));
builder.AddProject<Projects.Aspire_Service>("llama-kivi")
    .WithEnvironment("LlamaKivi__ModelPath", model)
    .WithHttpEndpoint()
    .WithHttpHealthCheck("/health");
builder.Build().Run();

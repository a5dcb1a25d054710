// Summarizes the text files of a folder, and those that appear later: NAME.txt -> NAME.summary.md.
// dotnet run -c Release --project samples/HostedWorker -- --LlamaKivi:ModelPath=MODEL.gguf --Folder=inbox
using HostedWorker;
using Microsoft.Extensions.DependencyInjection;
using Microsoft.Extensions.Hosting;

HostApplicationBuilder builder = Host.CreateApplicationBuilder(args);
builder.Services.AddLlamaKivi(builder.Configuration.GetSection("LlamaKivi"));
builder.Services.AddHostedService<SummaryWorker>();
await builder.Build().RunAsync();

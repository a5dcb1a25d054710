// A server whose metrics and traces go where OTEL_EXPORTER_OTLP_ENDPOINT says, such as to Aspire's dashboard.

using OpenTelemetry;
using OpenTelemetry.Metrics;
using OpenTelemetry.Trace;

WebApplicationBuilder builder = WebApplication.CreateBuilder(args);
builder.Services.AddLlamaKivi(builder.Configuration.GetSection("LlamaKivi"));
builder.Services.AddOpenTelemetry()
    .WithMetrics(metrics => metrics.AddMeter("LlamaKivi").AddAspNetCoreInstrumentation())
    .WithTracing(traces => traces.AddSource("LlamaKivi").AddAspNetCoreInstrumentation())
    .UseOtlpExporter();
WebApplication app = builder.Build();
app.MapLlamaKivi();
app.Run();

using System.Diagnostics;
using LlamaKivi.Abstractions;
using LlamaKivi.Sampling;

namespace LlamaKivi.Hosting;

/// <summary>The span of a request, by OpenTelemetry's conventions for generative AI, with a child span for each of its phases.</summary>
/// <remarks>The phases are "queue", until the request has a sequence, "prefill", until its first token, and "decode". Moves to host memory and back are events.</remarks>
internal sealed class CallTrace
{
    /// <summary>Name of the source.</summary>
    public const string SourceName = "LlamaKivi";

    private static readonly ActivitySource Source = new(SourceName, typeof(CallTrace).Assembly.GetName().Version?.ToString(3));

    private readonly Activity _span;
    private readonly string _model;

    private CallTrace(Activity span, string model) => (_span, _model) = (span, model);

    /// <summary>Starts the span of a request under the caller's current span; null: nobody listens.</summary>
    public static CallTrace? Start(IInferenceParams options, string model)
    {
        Activity? caller = Activity.Current;
        if (Source.CreateActivity($"{EngineMetrics.Operation(options)} {model}", ActivityKind.Internal, caller?.Context ?? default, Attributes(options, model)) is not { } span)
        {
            return null;
        }

        span.Start();
        Activity.Current = caller;  // the span ends on another thread
        return new CallTrace(span, model);
    }

    /// <summary>Adds an event to the span.</summary>
    public void Add(string name) => _span.AddEvent(new ActivityEvent(name));

    /// <summary>Ends the span with the results of its request.</summary>
    public void End(GenerationCall call)
    {
        if (call.AdmittedAfter is { } admitted)
        {
            _span.SetTag("gen_ai.response.model", _model);
            _span.SetTag("gen_ai.usage.input_tokens", call.Prompt.Length);
            _span.SetTag("gen_ai.usage.cache_read.input_tokens", call.Results.CachedTokens);
            _span.SetTag("gen_ai.usage.output_tokens", call.GeneratedCount);
            Phase("queue", TimeSpan.Zero, admitted);
            Phase("prefill", admitted, call.FirstTokenAfter ?? call.Age);
            if (call.FirstTokenAfter is { } first)
            {
                Phase("decode", first, call.Age);
            }
        }
        else
        {
            Phase("queue", TimeSpan.Zero, call.Age);
        }

        if (call.Error is { } error)
        {
            _span.SetTag("error.type", EngineMetrics.ErrorType(error));
            _span.SetStatus(ActivityStatusCode.Error, error.Message);
        }
        else
        {
            _span.SetTag("gen_ai.response.finish_reasons", (string[])[call.Results.StopReason is StopReason.MaxTokens or StopReason.ContextFull ? "length" : "stop"]);
        }

        Stop(_span, _span.StartTimeUtc + call.Age);
    }

    private static List<KeyValuePair<string, object?>> Attributes(IInferenceParams options, string model)
    {
        List<KeyValuePair<string, object?>> attributes =
        [
            new("gen_ai.operation.name", EngineMetrics.Operation(options)),
            new("gen_ai.provider.name", EngineMetrics.ProviderName),
            new("gen_ai.request.model", model),
        ];
        if (options.MaxTokens >= 0)
        {
            attributes.Add(new("gen_ai.request.max_tokens", options.MaxTokens));
        }

        if (options.AntiPrompts.Count > 0)
        {
            attributes.Add(new("gen_ai.request.stop_sequences", options.AntiPrompts.ToArray()));
        }

        if (options.SamplingPipeline is DefaultSamplingPipeline pipeline)
        {
            attributes.Add(new("gen_ai.request.temperature", (double)pipeline.Temperature));
            attributes.Add(new("gen_ai.request.top_p", (double)pipeline.TopP));
            attributes.Add(new("gen_ai.request.top_k", pipeline.TopK));
            attributes.Add(new("gen_ai.request.seed", (long)pipeline.Seed));
        }

        return attributes;
    }

    private void Phase(string name, TimeSpan from, TimeSpan to)
    {
        if (Source.CreateActivity(name, ActivityKind.Internal, _span.Context) is { } phase)
        {
            Activity? caller = Activity.Current;
            phase.SetStartTime(_span.StartTimeUtc + from);
            phase.Start();
            Activity.Current = caller;
            Stop(phase, _span.StartTimeUtc + to);
        }
    }

    // Stopping makes the parent current, which belongs to another thread.
    private static void Stop(Activity span, DateTime end)
    {
        Activity? caller = Activity.Current;
        span.SetEndTime(end);
        span.Stop();
        Activity.Current = caller;
    }
}

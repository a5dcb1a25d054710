namespace LlamaKivi.Hosting;

/// <summary>The engines of a host. They drain at the same time, so that several engines take no longer to stop than one.</summary>
internal sealed class EngineGroup
{
    private readonly Lock _gate = new();
    private readonly List<InferenceEngine> _engines = [];

    public void Add(InferenceEngine engine)
    {
        lock (_gate)
        {
            _engines.Add(engine);
        }
    }

    public void BeginDrain()
    {
        InferenceEngine[] engines;
        lock (_gate)
        {
            engines = [.. _engines];
        }

        Array.ForEach(engines, engine => _ = engine.BeginDrain());
    }
}

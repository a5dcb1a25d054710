using LlamaKivi.Hosting;

namespace LlamaKivi.Server;

/// <summary>Options of a folder of models, which are loaded when requests ask for them.</summary>
public sealed class ModelFolderOptions
{
    /// <summary>Folder of GGUF files. A model has the name of its file without ".gguf". Files that appear later are found too.</summary>
    public string Folder { get; set; } = "";

    /// <summary>Options of each model's engine. <see cref="Common.ModelParams.ModelPath"/> is ignored.</summary>
    public InferenceEngineOptions Engine { get; set; } = new();

    /// <summary>Maximum number of models in memory.</summary>
    public int MaxLoaded { get; set; } = 4;

    /// <summary>Time without requests after which a model is unloaded; <see cref="Timeout.InfiniteTimeSpan"/>: never.</summary>
    public TimeSpan IdleTimeout { get; set; } = TimeSpan.FromMinutes(10);

    /// <summary>Limit in bytes of the estimated memory of all loaded models and their caches; null: the memory that is free when a model is loaded.</summary>
    public long? MemoryBytes { get; set; }

    /// <summary>Errors of the options; each message begins with the option's name.</summary>
    internal IEnumerable<string> Errors()
    {
        if (string.IsNullOrWhiteSpace(Folder))
        {
            yield return $"{nameof(Folder)} is not set; give the path of a folder of GGUF files.";
        }
        else if (!Directory.Exists(Folder))
        {
            yield return $"{nameof(Folder)} is '{Folder}', which is no folder; give the path of a folder of GGUF files.";
        }

        if (MaxLoaded < 1)
        {
            yield return $"{nameof(MaxLoaded)} is {MaxLoaded}; it must be 1 or more.";
        }

        if (IdleTimeout <= TimeSpan.Zero && IdleTimeout != Timeout.InfiniteTimeSpan)
        {
            yield return string.Create(System.Globalization.CultureInfo.InvariantCulture, $"{nameof(IdleTimeout)} is {IdleTimeout}; it must be above zero, or -00:00:00.0010000 for never.");
        }

        if (MemoryBytes is <= 0)
        {
            yield return $"{nameof(MemoryBytes)} is {MemoryBytes}; it must be above 0, or not set.";
        }

        foreach (string error in InferenceEngineOptionsValidator.Errors(Engine).Where(error => !error.StartsWith(nameof(Engine.ModelPath), StringComparison.Ordinal)))
        {
            yield return $"{nameof(Engine)}:{error}";
        }
    }
}

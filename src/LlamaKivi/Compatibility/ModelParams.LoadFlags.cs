using System.ComponentModel;
using System.Text.Json.Serialization;
using LlamaKivi.Native;

namespace LlamaKivi.Common;

// LLamaSharp's flags before LoadMode.
public partial record ModelParams
{
    /// <summary>Whether <see cref="LoadMode"/> maps the file.</summary>
    [Obsolete("Use LoadMode."), EditorBrowsable(EditorBrowsableState.Never), JsonPropertyOrder(CompatibilityOrder)]
    public bool UseMemorymap
    {
        get => LoadMode is LLamaLoadMode.MemoryMap or LLamaLoadMode.MemoryMapAndLock;
        set => LoadMode = WithFlag(LLamaLoadMode.MemoryMap, value);
    }

    /// <summary>Whether <see cref="LoadMode"/> is direct I/O. Accepted and ignored: the file is read, not mapped, through the system's cache.</summary>
    [AcceptedAndIgnored]
    [Obsolete("Use LoadMode."), EditorBrowsable(EditorBrowsableState.Never), JsonPropertyOrder(CompatibilityOrder)]
    public bool UseDirectIO
    {
        get => LoadMode is LLamaLoadMode.DirectIO;
        set => LoadMode = value ? LLamaLoadMode.DirectIO : LoadMode is LLamaLoadMode.DirectIO ? LLamaLoadMode.None : LoadMode;
    }

    /// <summary>Whether <see cref="LoadMode"/> locks memory. Accepted and ignored: memory is not locked.</summary>
    [AcceptedAndIgnored]
    [Obsolete("Use LoadMode."), EditorBrowsable(EditorBrowsableState.Never), JsonPropertyOrder(CompatibilityOrder)]
    public bool UseMemoryLock
    {
        get => LoadMode is LLamaLoadMode.MemoryLock or LLamaLoadMode.MemoryMapAndLock;
        set => LoadMode = WithFlag(LLamaLoadMode.MemoryLock, value);
    }

    // Mapping and locking combine. Direct I/O excludes both: setting either flag ends it.
    private LLamaLoadMode WithFlag(LLamaLoadMode flag, bool value) => (LoadMode, value) switch
    {
        (LLamaLoadMode.DirectIO, true) => flag,
        (LLamaLoadMode.DirectIO, false) => LoadMode,
        (_, true) => LoadMode | flag,
        _ => LoadMode & ~flag,
    };
}

namespace LlamaKivi.Common;

/// <content>Settings that have no effect with the cache's types.</content>
public sealed partial record KvCacheParams
{
    private string Types => TypeK == TypeV ? $"{TypeK}" : $"{TypeK}/{TypeV}";

    /// <summary>These parameters without the settings that neither the type of the keys nor that of the values uses, such as <see cref="Group"/> with f16. <see cref="Validate"/> refuses such settings.</summary>
    public KvCacheParams WithoutUnused()
    {
        KvCacheParams used = this;
        foreach ((string setting, _) in Unused())
        {
            used = setting switch
            {
                nameof(Group) => used with { Group = 0 },
                nameof(Residual) => used with { Residual = null },
                nameof(Sinks) => used with { Sinks = null },
                nameof(RefinedEighths) => used with { RefinedEighths = null },
                _ => used with { ResidualType = null },
            };
        }

        return used;
    }

    /// <summary>Names, as in messages, of the settings of other parameters that these types do not use.</summary>
    internal IEnumerable<string> Dropped(KvCacheParams other) => (other with { TypeK = TypeK, TypeV = TypeV }).Unused().Select(unused => $"KvCache.{unused.Setting}");

    // The settings without effect, each with an error message. A value that states what the types do anyway, such as a residual of 0, is allowed.
    private IEnumerable<(string Setting, string Message)> Unused()
    {
        if (Group != 0 && !TypeK.IsKivi && !TypeV.IsKivi)
        {
            yield return (nameof(Group), $"KvCache.Group is {Group}, which only KIVI types use; the cache is {Types}. Leave it out, or choose a type such as kivi2");
        }

        bool isQuantized = !TypeK.IsFloat || !TypeV.IsFloat;
        if (Residual > 0 && !isQuantized)
        {
            yield return (nameof(Residual), $"KvCache.Residual is {Residual}, which only quantized types use; the cache is {Types}. Leave it out, or choose a type such as kivi2");
        }

        if (Sinks > 0 && !isQuantized)
        {
            yield return (nameof(Sinks), $"KvCache.Sinks is {Sinks}, which only quantized types use; the cache is {Types}. Leave it out, or choose a type such as kivi2");
        }

        if (RefinedEighths > 0 && TypeK != KvCacheType.Kivi2 && TypeK != KvCacheType.Kivi3)
        {
            yield return (nameof(RefinedEighths), $"KvCache.RefinedEighths is {RefinedEighths}, which only keys of kivi2 and kivi3 use; the keys are {TypeK}. Leave it out, or choose kivi2");
        }

        // f16 is allowed with every type: where there is no choice, rows are f16.
        if (ResidualType == KvCacheType.Q8_0 && !ChoosesResidualType(TypeK) && !ChoosesResidualType(TypeV))
        {
            KvCacheType type = IsPaper(TypeK) ? TypeK : TypeV;
            yield return (nameof(ResidualType), $"KvCache.ResidualType is {ResidualType}" + (IsPaper(type) ? $", but {type} always has f16. Leave it out, or choose kivi2"
                : isQuantized ? $", but {Types} has no residual unless KvCache.Residual sets one. Set it too, or leave KvCache.ResidualType out"
                : $", which only quantized types use; the cache is {Types}. Leave it out, or choose a type such as kivi2"));
        }
    }

    private bool ChoosesResidualType(KvCacheType type) => type.IsKivi ? !IsPaper(type) : !type.IsFloat && Residual > 0;
}

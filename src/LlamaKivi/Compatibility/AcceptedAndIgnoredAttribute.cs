namespace LlamaKivi;

/// <summary>Marks a setting, method or parameter of LLamaSharp that is accepted and has no effect. Its documentation gives the reason; docs/from-llamasharp.md lists it.</summary>
/// <remarks>Only Compatibility declares and reads such members. Tests find them by this attribute.</remarks>
[AttributeUsage(AttributeTargets.Property | AttributeTargets.Method | AttributeTargets.Parameter)]
internal sealed class AcceptedAndIgnoredAttribute : Attribute;

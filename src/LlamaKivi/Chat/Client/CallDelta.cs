namespace LlamaKivi;

/// <summary>A part of a call's arguments, the raw representation of an update without contents. The call's content follows and has one as its raw representation, too.</summary>
/// <param name="CallId">Id of the call.</param>
/// <param name="Name">Name of the function.</param>
/// <param name="Arguments">JSON text that continues the arguments.</param>
/// <param name="IsFirst">Whether the arguments begin with it.</param>
internal sealed record CallDelta(string CallId, string Name, string Arguments, bool IsFirst);

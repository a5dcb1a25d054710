using System.Runtime.CompilerServices;

// All signatures are blittable, so the generated calls need no marshalling stubs.
[assembly: DisableRuntimeMarshalling]

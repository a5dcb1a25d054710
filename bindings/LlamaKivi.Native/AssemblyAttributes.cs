using System.Runtime.CompilerServices;

// All signatures are blittable: the generated calls need no marshalling stubs.
[assembly: DisableRuntimeMarshalling]

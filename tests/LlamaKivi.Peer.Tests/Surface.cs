using System.Reflection;

namespace LlamaKivi.Peer.Tests;

/// <summary>The public and protected surface of an assembly, read from metadata: one line for a type, one for each of its members.</summary>
internal sealed class Surface
{
    private const BindingFlags Members = BindingFlags.Public | BindingFlags.NonPublic | BindingFlags.Instance | BindingFlags.Static | BindingFlags.DeclaredOnly;

    private readonly Dictionary<string, Type> _types;

    private Surface(IEnumerable<Assembly> assemblies) => _types = assemblies.SelectMany(assembly => assembly.GetTypes()).Where(IsVisible).ToDictionary(Name);

    public static Surface Read(MetadataLoadContext context, params string[] paths) => new(paths.Select(context.LoadFromAssemblyPath));

    /// <summary>The lines of <paramref name="peer"/> that a program compiled against it would miss here, sorted.</summary>
    public IReadOnlyList<string> MissingFrom(Surface peer)
    {
        var missing = new List<string>();
        foreach ((string name, Type theirs) in peer._types)
        {
            if (!_types.TryGetValue(name, out Type? ours))
            {
                // A nested type of a missing type is missing with it.
                if (theirs.DeclaringType is null || _types.ContainsKey(Name(theirs.DeclaringType)))
                {
                    missing.Add($"{name} : type");
                }

                continue;
            }

            missing.AddRange(Traits(theirs).Except(Traits(ours)).Select(trait => $"{name} : {trait}"));
            ILookup<string, Member> members = Describe(ours, inherited: true).ToLookup(member => member.Head);
            missing.AddRange(Describe(theirs, inherited: false)
                .Where(wanted => !members[wanted.Head].Any(wanted.IsMetBy))
                .Select(wanted => $"{name} : {wanted}"));
        }

        missing.Sort(StringComparer.Ordinal);
        return missing;
    }

    private static bool IsVisible(Type type) =>
        type.IsNested ? (type.IsNestedPublic || type.IsNestedFamily || type.IsNestedFamORAssem) && IsVisible(type.DeclaringType!) : type.IsPublic;

    /// <summary>Properties of a type other than its members: kind, whether programs can derive from it or create it, base class, interfaces.</summary>
    private static IEnumerable<string> Traits(Type type)
    {
        yield return type switch
        {
            { IsInterface: true } => "interface",
            { IsEnum: true } => $"enum of {Name(type.GetEnumUnderlyingType())}",
            { IsValueType: true } => "struct",
            _ when type.BaseType is { FullName: "System.MulticastDelegate" } => "delegate",
            _ => "class",
        };
        if (type is { IsClass: true, IsAbstract: true, IsSealed: true })
        {
            yield return "static";
        }
        else if (type is { IsClass: true, IsSealed: false })
        {
            yield return "can be derived from";
        }

        for (Type? parent = type.BaseType; parent is not null; parent = parent.BaseType)
        {
            yield return $"is a {Name(parent)}";
        }

        foreach (Type contract in type.GetInterfaces().Where(contract => IsVisible(contract.IsConstructedGenericType ? contract.GetGenericTypeDefinition() : contract)))
        {
            yield return $"is a {Name(contract)}";
        }
    }

    private static IEnumerable<Member> Describe(Type type, bool inherited)
    {
        IEnumerable<Type> sources = [type];
        if (inherited)
        {
            var parents = new List<Type>();
            for (Type? parent = type; parent is not null; parent = parent.BaseType)
            {
                parents.Add(parent);
            }

            sources = parents.Concat(type.IsInterface ? type.GetInterfaces() : []);
        }

        foreach (Type source in sources)
        {
            foreach (ConstructorInfo constructor in source == type ? source.GetConstructors(Members & ~BindingFlags.Static).Where(IsVisible) : [])
            {
                yield return new Member("new", Parameters(constructor), type.IsAbstract || constructor.IsPublic ? "" : "protected");
            }

            foreach (MethodInfo method in source.GetMethods(Members).Where(method => IsVisible(method) && (!method.IsSpecialName || method.Name.StartsWith("op_", StringComparison.Ordinal))))
            {
                // Compiler-generated members of records have angle brackets in their names; programs do not call finalizers.
                if (!method.Name.Contains('<', StringComparison.Ordinal) && method.Name != "Finalize")
                {
                    string arity = method.IsGenericMethodDefinition ? $"`{method.GetGenericArguments().Length}" : "";
                    yield return new Member($"{Kind(method)}{Name(method.ReturnType)} {method.Name}{arity}", Parameters(method), Access(method));
                }
            }

            foreach (PropertyInfo property in source.GetProperties(Members))
            {
                Parameter[] index = [.. property.GetIndexParameters().Select(Parameter.Of)];
                foreach (MethodInfo accessor in new[] { property.GetMethod, property.SetMethod }.OfType<MethodInfo>().Where(IsVisible))
                {
                    bool isGet = accessor == property.GetMethod;
                    string head = $"{Kind(accessor)}{Name(property.PropertyType)} {property.Name} {(isGet ? "get" : "set")}";
                    yield return new Member(head, index, Access(accessor));
                }
            }

            foreach (EventInfo notice in source.GetEvents(Members).Where(notice => IsVisible(notice.AddMethod!)))
            {
                yield return new Member($"event {Name(notice.EventHandlerType!)} {notice.Name}", null, "");
            }

            foreach (FieldInfo field in source.GetFields(Members).Where(field => field.IsPublic || field.IsFamily || field.IsFamilyOrAssembly))
            {
                if (type.IsEnum)
                {
                    if (field.IsLiteral)
                    {
                        yield return new Member($"{field.Name} = {field.GetRawConstantValue()}", null, "");
                    }

                    continue;
                }

                string kind = field.IsStatic || field.IsLiteral ? "static " : "";
                yield return new Member($"{kind}{Name(field.FieldType)} {field.Name} get", [], field.IsPublic ? "" : "protected");
                if (field is { IsLiteral: false, IsInitOnly: false })
                {
                    yield return new Member($"{kind}{Name(field.FieldType)} {field.Name} set", [], field.IsPublic ? "" : "protected");
                }
            }
        }
    }

    private static bool IsVisible(MethodBase method) => method.IsPublic || method.IsFamily || method.IsFamilyOrAssembly;

    private static string Kind(MethodInfo method) => method.IsStatic ? "static " : "";

    private static string Access(MethodInfo method)
    {
        string access = method.IsPublic ? "" : "protected";
        bool overridable = method is { IsVirtual: true, IsFinal: false } && method.DeclaringType is { IsSealed: false, IsInterface: false };
        return overridable ? $"{access} virtual".TrimStart() : access;
    }

    private static Parameter[] Parameters(MethodBase method) => [.. method.GetParameters().Select(Parameter.Of)];

    /// <summary>A type's name in LLamaSharp's namespaces, whichever of the two libraries it is of.</summary>
    private static string Name(Type type)
    {
        if (type.IsGenericParameter)
        {
            return type.DeclaringMethod is null ? $"!{type.GenericParameterPosition}" : $"!!{type.GenericParameterPosition}";
        }

        if (type.IsByRef)
        {
            return $"{Name(type.GetElementType()!)}&";
        }

        if (type.IsPointer)
        {
            return $"{Name(type.GetElementType()!)}*";
        }

        if (type.IsArray)
        {
            return $"{Name(type.GetElementType()!)}[{new string(',', type.GetArrayRank() - 1)}]";
        }

        if (type.IsFunctionPointer)
        {
            return "delegate*";
        }

        string name = type.IsNested ? $"{Name(type.DeclaringType!)}.{type.Name}" : $"{type.Namespace}.{type.Name}";
        name = name.StartsWith("LlamaKivi", StringComparison.Ordinal) ? $"LLama{name["LlamaKivi".Length..]}" : name;
        return type.IsConstructedGenericType ? $"{name}<{string.Join(", ", type.GetGenericArguments().Select(Name))}>" : name;
    }

    private sealed record Parameter(string Type, string Label, bool IsOptional)
    {
        public static Parameter Of(ParameterInfo parameter) =>
            new($"{(parameter.IsOut ? "out " : "")}{Surface.Name(parameter.ParameterType)}", parameter.Name ?? "", parameter.IsOptional);

        public override string ToString() => $"{Type} {Label}{(IsOptional ? " = default" : "")}";
    }

    /// <summary>A member: <paramref name="Head"/> contains result type and name, <paramref name="List"/> the parameters.</summary>
    private sealed record Member(string Head, Parameter[]? List, string Access)
    {
        /// <summary>A call or an override that compiles against this member compiles against <paramref name="other"/>.</summary>
        public bool IsMetBy(Member other)
        {
            if (Access == other.Access && Same(List ?? [], other.List ?? []))
            {
                return true;
            }

            // An override must repeat all parameters; a call may omit optional ones.
            bool isOverridden = Access.EndsWith("virtual", StringComparison.Ordinal);
            bool isReachable = Access == other.Access || (Access.Length == 0 && other.Access == "virtual");
            return !isOverridden && isReachable && List is not null && other.List is not null && other.List.Length >= List.Length
                && Same(List, other.List[..List.Length]) && other.List.Skip(List.Length).All(parameter => parameter.IsOptional);
        }

        public override string ToString()
        {
            string access = Access.Length > 0 ? $"{Access} " : "";
            return List is { Length: > 0 } || (List is not null && !Head.EndsWith("get", StringComparison.Ordinal) && !Head.EndsWith("set", StringComparison.Ordinal))
                ? $"{access}{Head}({string.Join(", ", List)})"
                : $"{access}{Head}";
        }

        // Names count, because arguments can be named. A parameter required there may be optional here.
        private static bool Same(Parameter[] wanted, Parameter[] present) =>
            wanted.Length == present.Length && wanted.Zip(present).All(pair => pair.First.Type == pair.Second.Type && pair.First.Label == pair.Second.Label
                && (!pair.First.IsOptional || pair.Second.IsOptional));
    }
}

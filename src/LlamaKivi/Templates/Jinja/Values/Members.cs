using System.Numerics;

namespace LlamaKivi.Templates.Jinja;

/// <summary>Attributes, items and slices of values, with the rules of jinja2's sandbox.</summary>
internal static class Members
{
    /// <summary>value.name: the attribute, otherwise the item.</summary>
    public static object? GetAttribute(Rendering rendering, object? target, string name) =>
        TryGetAttribute(rendering, target, name, out object? value) || TryGetItem(rendering, target, name, out value) ? value : Undefined.Member(target, name);

    /// <summary>value[key]: the item, otherwise the attribute.</summary>
    public static object? GetItem(Rendering rendering, object? target, object? key) =>
        TryGetItem(rendering, target, key, out object? value) || (Types.Str(key) is { } name && TryGetAttribute(rendering, target, name, out value)) ? value : Undefined.Member(target, key);

    /// <summary>Resolves a filter's attribute path: names separated by dots, each an item or attribute of the preceding value.</summary>
    public static Func<object?, object?> Getter(Rendering rendering, object? path, Func<object?, object?>? after = null, object? fallback = null)
    {
        object?[] parts = Types.Str(path) is { } text ? [.. text.Split('.').Select(part => part.Length is > 0 and < 18 && part.All(char.IsAsciiDigit) ? long.Parse(part, System.Globalization.CultureInfo.InvariantCulture) : (object?)part)]
            : path is null ? [] : [path];
        return item =>
        {
            foreach (object? part in parts)
            {
                rendering.Budget.Step();
                item = GetItem(rendering, item, part);
                item = item is Undefined && fallback is not null ? fallback : item;
            }

            return after is null ? item : after(item);
        };
    }

    public static bool TryGetAttribute(Rendering rendering, object? target, string name, out object? value)
    {
        switch (target)
        {
            case PyNamespace space when space.Attributes.TryGetValue(name, out value):
                return true;
            case LoopContext loop when loop.TryGetAttribute(name, out value):
                return true;
            case Macro macro when macro.TryGetAttribute(name, out value):
                return true;
            case Cycler cycler when TryGet(cycler, name, out value):
                return true;
            case Joiner joiner when name is "sep" or "used":
                value = name == "sep" ? joiner.Separator : joiner.IsUsed;
                return true;
            case PyTuple { IsGroup: true } group when name is "grouper" or "list":
                value = group.Items[name == "grouper" ? 0 : 1];
                return true;
            case PySlice slice when name is "start" or "stop" or "step":
                value = name == "start" ? slice.Start : name == "stop" ? slice.Stop : slice.Step;
                return true;
            case PyRange range when name is "start" or "stop" or "step":
                value = name == "start" ? range.Start : name == "stop" ? range.Stop : range.Step;
                return true;
            case TemplateReference when rendering.Blocks.TryGetValue(name, out BlockStatement? block):
                value = new BoundMethod(target, block.Operation);
                return true;
            case bool or long or BigInteger when name is "real" or "numerator" or "imag" or "denominator":
                value = name is "real" or "numerator" ? Arithmetic.Normal(Arithmetic.Big(target)) : name == "imag" ? 0L : 1L;
                return true;
            case double x when name is "real" or "imag":
                value = name == "real" ? x : 0.0;
                return true;
            case Undefined undefined when name != "__class__":
                throw undefined.Error();
        }

        if (Methods.Find(target, name) is { } method)
        {
            value = new BoundMethod(target, method);
            return true;
        }

        bool isUnsafe = name.StartsWith("__", StringComparison.Ordinal) || Methods.IsUnsafe(target, name);
        value = isUnsafe ? Undefined.Unsafe(target, name) : null;
        return isUnsafe;
    }

    /// <summary>value[start:stop:step].</summary>
    public static object? GetSlice(Rendering rendering, object? target, PySlice slice)
    {
        Budget budget = rendering.Budget;
        budget.Read(target);
        switch (target)
        {
            case string text:
                return budget.Made(Cut(budget, text, slice));
            case Markup markup:
                return new Markup(budget.Made(Cut(budget, markup.Text, slice)));
            case JinjaList list:
                return new JinjaList([.. Cut(budget, list.Items, slice)]);
            case PyTuple tuple:
                return new PyTuple([.. Cut(budget, tuple.Items, slice)]);
            case PyBytes bytes:
                return new PyBytes([.. Cut(budget, bytes.Bytes, slice)]);
            case PyRange range:
                (long start, long stop, _) = Bounds(slice, range.Count);
                Int128 step = (Int128)(Index(slice.Step) ?? 1) * range.Step;
                return new PyRange(range.Start + start * range.Step, range.Start + stop * range.Step, (long)Int128.Clamp(step, long.MinValue, long.MaxValue));
            case JinjaDict:
                throw new TemplateException("A slice cannot be a dictionary key.");
            default:
                throw Types.Error(target, $"A {Types.Name(target)} cannot be sliced.");
        }
    }

    private static bool TryGetItem(Rendering rendering, object? target, object? key, out object? value)
    {
        value = null;
        if (target is JinjaDict dict)
        {
            rendering.Budget.Read(key);
            return KeyComparer.IsHashable(key) && dict.TryGetValue(key, out value);
        }

        if (target is Undefined undefined)
        {
            throw undefined.Error();
        }

        if (key is PySlice slice)
        {
            bool isSequence = target is string or Markup or JinjaList or PyTuple or PyRange or PyBytes;
            value = isSequence ? GetSlice(rendering, target, slice) : null;
            return isSequence;
        }

        if (key is not (long or bool))
        {
            return false;
        }

        long index = key is long n ? n : (bool)key ? 1 : 0;
        long count = target is string or Markup or JinjaList or PyTuple or PyRange or PyBytes ? Iteration.Length(target)!.Value : 0;
        index += index < 0 ? count : 0;
        if (index < 0 || index >= count)
        {
            return false;
        }

        rendering.Budget.Run(target is string text ? text.Length : 0);
        value = target switch
        {
            JinjaList list => list.Items[(int)index],
            PyTuple tuple => tuple.Items[index],
            string s => PyText.Part(s, (int)index, 1),
            Markup markup => new Markup(PyText.Part(markup.Text, (int)index, 1)),
            PyBytes bytes => (long)bytes.Bytes[index],
            _ => ((PyRange)target!)[index],
        };
        return true;
    }

    private static bool TryGet(Cycler cycler, string name, out object? value)
    {
        value = name switch
        {
            "current" => cycler.Current,
            "pos" => (long)cycler.Position,
            "items" => new PyTuple(cycler.Items),
            _ => null,
        };
        return name is "current" or "pos" or "items";
    }

    private static string Cut(Budget budget, string text, PySlice slice)
    {
        (long start, long stop, long step) = Bounds(slice, PyText.Length(text));
        if (step == 1)
        {
            return start < stop ? PyText.Part(text, (int)start, (int)(stop - start)) : "";
        }

        return string.Concat(Cut(budget, [.. PyText.Characters(text)], slice));
    }

    private static IEnumerable<T> Cut<T>(Budget budget, IList<T> items, PySlice slice)
    {
        (long start, long stop, long step) = Bounds(slice, items.Count);
        for (long i = start; step > 0 ? i < stop : i > stop; i += step)
        {
            budget.Items(1);
            yield return items[(int)i];
        }
    }

    private static (long Start, long Stop, long Step) Bounds(PySlice slice, long count)
    {
        long step = Index(slice.Step) ?? 1;
        if (step == 0)
        {
            throw new TemplateException("The step of a slice must not be 0.");
        }

        step = Math.Clamp(step, -count - 1, count + 1);
        long Bound(object? value, long fallback)
        {
            if (Index(value) is not long at)
            {
                return fallback;
            }

            at = at < 0 ? Math.Max(at, -count - 1) + count : at;
            return step > 0 ? Math.Clamp(at, 0, count) : Math.Clamp(at, -1, count - 1);
        }

        return (Bound(slice.Start, step > 0 ? 0 : count - 1), Bound(slice.Stop, step > 0 ? count : -1), step);
    }

    private static long? Index(object? value) => value is null ? null : Arithmetic.Clamped(value, "A bound of a slice");
}

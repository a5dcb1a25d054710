using System.Numerics;

namespace LlamaKivi.Templates.Jinja;

/// <summary>Filters that return numbers.</summary>
internal static class NumberFilters
{
    public static IEnumerable<Operation> All =>
    [
        new("int", "default=0 base=10", Int),
        new("float", "default=0.0", (_, value, a) => TryReal(value, out double number) ? number : a[0]),
        new("abs", "", (_, value, _) => Arithmetic.Absolute(value)),
        new("round", "precision=0 method='common'", Round),
    ];

    /// <summary>Reads a number, or a string that float() can parse.</summary>
    public static bool TryReal(object? value, out double number)
    {
        number = 0;
        if (Types.Str(value) is { } text)
        {
            return NumberParsing.TryFloat(text, out number);
        }

        if (value is Undefined undefined)
        {
            throw undefined.Error();
        }

        if (!Types.IsNumber(value))
        {
            return false;
        }

        number = Arithmetic.Real(value!);
        return true;
    }

    private static object? Int(Rendering rendering, object? value, object?[] a)
    {
        if (Types.Str(value) is { } text)
        {
            return NumberParsing.TryInteger(text, Arithmetic.Clamped(a[1], "The base of int"), out object integer) ? integer
                : NumberParsing.TryFloat(text, out double real) ? Arithmetic.Truncated(real) ?? a[0] : a[0];
        }

        return value switch
        {
            Undefined undefined => throw undefined.Error(),
            bool or long or BigInteger => Arithmetic.Normal(Arithmetic.Big(value)),
            double x when double.IsInfinity(x) => throw new TemplateException("An infinite float cannot be converted to an integer."),
            double x => Arithmetic.Truncated(x) ?? a[0],
            _ => a[0],
        };
    }

    private static object? Round(Rendering rendering, object? value, object?[] a)
    {
        if (Types.Str(a[1]) is not ("common" or "ceil" or "floor"))
        {
            throw new TemplateException("The method of round must be 'common', 'ceil' or 'floor'.");
        }

        if (!Types.IsNumber(value))
        {
            throw Types.Error(value, $"A {Types.Name(value)} cannot be rounded.");
        }

        if (Types.Str(a[1]) == "common")
        {
            return a[0] is null
                ? value is double real ? NumberText.Round(real) : Arithmetic.Normal(Arithmetic.Big(value!))
                : value is double x ? NumberText.Round(x, Arithmetic.Clamped(a[0], "The precision")) : NumberText.Round(value!, Arithmetic.Clamped(a[0], "The precision"));
        }

        if (!Types.IsNumber(a[0]))
        {
            throw Types.Error(a[0], "The precision must be a number.");
        }

        object factor = Arithmetic.Power(rendering.Budget, 10L, a[0]!);
        object scaled = Arithmetic.Multiply(rendering.Budget, value!, factor);
        object whole = scaled is double number
            ? Arithmetic.Truncated(Types.Str(a[1]) == "ceil" ? Math.Ceiling(number) : Math.Floor(number)) ?? throw new TemplateException("Infinity and NaN cannot be rounded to an integer.")
            : scaled;
        return Arithmetic.Divide(whole, factor);
    }
}

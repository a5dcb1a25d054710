using System.Globalization;
using System.Text;

namespace LlamaKivi.Templates;

/// <summary>Formats times like glibc's strftime in the C locale.</summary>
internal static class StrfTime
{
    public static string Format(string format, DateTimeOffset time)
    {
        var text = new StringBuilder();
        for (int i = 0; i < format.Length; i++)
        {
            if (format[i] != '%' || i + 1 == format.Length)
            {
                text.Append(format[i]);
                continue;
            }

            int start = i;
            char flag = '\0';
            while (i + 1 < format.Length && format[i + 1] is '-' or '_' or '0' or '^' or '#')
            {
                flag = format[++i];
            }

            int width = 0;
            while (i + 1 < format.Length && char.IsAsciiDigit(format[i + 1]) && width < 1000)
            {
                width = width * 10 + format[++i] - '0';
            }

            if (i + 1 == format.Length)
            {
                text.Append(format.AsSpan(start));
                break;
            }

            string? part = Part(format[++i], time);
            text.Append(part is null ? format[start..(i + 1)] : Flagged(part, flag, width));
        }

        return text.ToString();
    }

    private static string Flagged(string part, char flag, int width)
    {
        bool numeric = part.AsSpan().TrimStart(' ').IndexOfAnyExceptInRange('0', '9') < 0 && part.Length > 0;
        string plain = part.TrimStart(' ', '0') is { Length: > 0 } digits ? digits : "0";
        string text = flag switch
        {
            '-' when numeric => plain,
            '_' when numeric => plain.PadLeft(part.Length),
            '0' when numeric => plain.PadLeft(part.Length, '0'),
            '^' => part.ToUpperInvariant(),
            '#' => part is "AM" or "PM" ? part.ToLowerInvariant() : part.ToUpperInvariant(),
            _ => part,
        };
        return flag == '-' ? text : text.PadLeft(width, numeric && flag != '_' && !part.StartsWith(' ') ? '0' : ' ');
    }

    private static string? Part(char code, DateTimeOffset time) => code switch
    {
        'Y' => time.Year.ToString(CultureInfo.InvariantCulture),
        'y' => Text(time, "yy"),
        'C' => (time.Year / 100).ToString("00", CultureInfo.InvariantCulture),
        'm' => Text(time, "MM"),
        'd' => Text(time, "dd"),
        'e' => Blank(time.Day),
        'H' => Text(time, "HH"),
        'k' => Blank(time.Hour),
        'I' => Text(time, "hh"),
        'l' => Blank((time.Hour + 11) % 12 + 1),
        'M' => Text(time, "mm"),
        'S' => Text(time, "ss"),
        'f' => Text(time, "ffffff"),
        'p' => Text(time, "tt"),
        'P' => Text(time, "tt").ToLowerInvariant(),
        'B' => Text(time, "MMMM"),
        'b' or 'h' => Text(time, "MMM"),
        'A' => Text(time, "dddd"),
        'a' => Text(time, "ddd"),
        'j' => time.DayOfYear.ToString("000", CultureInfo.InvariantCulture),
        'u' => ((int)(time.DayOfWeek + 6) % 7 + 1).ToString(CultureInfo.InvariantCulture),
        'w' => ((int)time.DayOfWeek).ToString(CultureInfo.InvariantCulture),
        'U' => ((time.DayOfYear + 6 - (int)time.DayOfWeek) / 7).ToString("00", CultureInfo.InvariantCulture),
        'W' => ((time.DayOfYear + 6 - ((int)time.DayOfWeek + 6) % 7) / 7).ToString("00", CultureInfo.InvariantCulture),
        'G' => ISOWeek.GetYear(time.DateTime).ToString(CultureInfo.InvariantCulture),
        'g' => (ISOWeek.GetYear(time.DateTime) % 100).ToString("00", CultureInfo.InvariantCulture),
        'V' => ISOWeek.GetWeekOfYear(time.DateTime).ToString("00", CultureInfo.InvariantCulture),
        'D' or 'x' => Text(time, "MM/dd/yy"),
        'F' => Text(time, "yyyy-MM-dd"),
        'T' or 'X' => Text(time, "HH:mm:ss"),
        'R' => Text(time, "HH:mm"),
        'r' => Text(time, "hh:mm:ss tt"),
        'c' => Text(time, "ddd MMM ") + Blank(time.Day) + Text(time, " HH:mm:ss yyyy"),
        's' => time.ToUnixTimeSeconds().ToString(CultureInfo.InvariantCulture),
        'n' => "\n",
        't' => "\t",
        'z' or 'Z' => "",  // empty: like Python's datetime.now(), the time has no zone
        '%' => "%",
        _ => null,
    };

    private static string Text(DateTimeOffset time, string format) => time.ToString(format.Length == 1 ? "%" + format : format, CultureInfo.InvariantCulture);

    private static string Blank(int number) => number.ToString(CultureInfo.InvariantCulture).PadLeft(2);
}

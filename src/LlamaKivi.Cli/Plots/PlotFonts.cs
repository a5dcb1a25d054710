using SkiaSharp;

namespace LlamaKivi.Cli;

/// <summary>Fonts of the machine, which plots need for their text.</summary>
internal static class PlotFonts
{
    /// <summary>Says on the error stream that plots have no text if no font is installed, as in many containers.</summary>
    public static void WarnIfMissing()
    {
        if (SKTypeface.Default.GetGlyph('0') == 0)
        {
            Console.Error.WriteLine("llama-kivi: no font is installed, so plots have no text; install one (Debian: apt-get install fonts-dejavu-core)");
        }
    }
}

using System;
using System.Globalization;
using System.Linq;

/// Prints an amount as some countries write it.
class Money {
    static int Main(string[] words) {
        decimal amount;
        if (words.Length != 1 || !decimal.TryParse(words[0], NumberStyles.Number, CultureInfo.InvariantCulture, out amount)) {
            Console.Error.WriteLine("usage: money AMOUNT");
            return 2;
        }
        foreach (var name in new[] { "de-DE", "en-US", "ja-JP" })
            Console.WriteLine(name + " " + amount.ToString("C", new CultureInfo(name)).Replace('\u00a0', ' '));
        return 0;
    }
}

using System;
using System.IO;
using System.Net;

/// A page by HTTPS, with the trust that the image has.
public class Fetch
{
    public static void Main(string[] words)
    {
        using (var page = (HttpWebResponse)WebRequest.Create(words[0]).GetResponse())
            Console.WriteLine((int)page.StatusCode + " " + new StreamReader(page.GetResponseStream()).ReadToEnd());
    }
}

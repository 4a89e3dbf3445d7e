using System;
using System.Globalization;
using System.Net;
using System.Net.Security;
using System.Net.Sockets;
using System.Security.Cryptography;
using System.Security.Cryptography.X509Certificates;
using System.Threading.Tasks;

/// What a service asks of .NET: languages, time zones, certificates, and TLS with itself.
public class Hello
{
    public static int Main(string[] words)
    {
        foreach (var name in new[] { "de-DE", "fr-FR", "ja-JP" })
            Console.WriteLine(name + " " + 1234.5.ToString("C", new CultureInfo(name)).Replace('\u00a0', ' ').Replace('\u202f', ' '));
        var store = new X509Store(StoreName.Root, StoreLocation.LocalMachine);
        store.Open(OpenFlags.ReadOnly);
        Console.WriteLine("trusted " + (store.Certificates.Count > 100));
        Console.WriteLine("zone " + TimeZoneInfo.FindSystemTimeZoneById("Europe/Berlin").BaseUtcOffset);
        var own = new X509Certificate2(words[0], "secret");
        var listener = new TcpListener(IPAddress.Loopback, 0);
        listener.Start();
        var serving = Task.Run(() =>
        {
            using (var stream = new SslStream(listener.AcceptTcpClient().GetStream()))
            {
                stream.AuthenticateAsServer(own);
                stream.WriteByte((byte)'x');
            }
        });
        var port = ((IPEndPoint)listener.LocalEndpoint).Port;
        using (var client = new TcpClient("127.0.0.1", port))
        using (var stream = new SslStream(client.GetStream(), false, (a, given, c, d) => given.GetCertHashString() == own.GetCertHashString()))
        {
            stream.AuthenticateAsClient("localhost");
            Console.WriteLine("tls " + stream.SslProtocol + " " + (char)stream.ReadByte());
        }
        serving.Wait();
        return 0;
    }
}

import java.awt.Font;
import java.awt.image.BufferedImage;
import java.io.FileInputStream;
import java.net.InetAddress;
import java.nio.charset.Charset;
import java.security.KeyStore;
import java.text.NumberFormat;
import java.time.LocalDate;
import java.time.format.DateTimeFormatter;
import java.time.format.FormatStyle;
import java.util.Locale;
import javax.net.ssl.*;

/** What a service asks of a Java: languages, fonts, certificates, and TLS with itself. */
public class Hello {
    public static void main(String[] words) throws Exception {
        System.out.println("charset " + Charset.defaultCharset() + " " + System.getProperty("sun.jnu.encoding"));
        for (String tag : new String[] {"de-DE", "fr-FR", "ja-JP"}) {
            Locale locale = Locale.forLanguageTag(tag);
            System.out.println(tag + " " + NumberFormat.getCurrencyInstance(locale).format(1234.5).replace('\u00a0', ' ').replace('\u202f', ' ')
                + ", " + LocalDate.of(2026, 1, 2).format(DateTimeFormatter.ofLocalizedDate(FormatStyle.LONG).withLocale(locale)));
        }
        BufferedImage image = new BufferedImage(200, 50, BufferedImage.TYPE_INT_RGB);
        var graphics = image.createGraphics();
        graphics.setFont(new Font("DejaVu Sans", Font.PLAIN, 20));
        graphics.drawString("Hällo مرحبا", 5, 30);
        int lit = 0;
        for (int x = 0; x < 200; x++) for (int y = 0; y < 50; y++) if ((image.getRGB(x, y) & 0xffffff) != 0) lit++;
        System.out.println("letters " + (lit > 200));
        var factory = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        factory.init((KeyStore) null);
        System.out.println("trusted " + (((X509TrustManager) factory.getTrustManagers()[0]).getAcceptedIssuers().length > 100));
        System.out.println("tls " + handshake(words[0]));
    }

    static String handshake(String path) throws Exception {
        KeyStore own = KeyStore.getInstance("PKCS12");
        own.load(new FileInputStream(path), "secret".toCharArray());
        var keys = KeyManagerFactory.getInstance(KeyManagerFactory.getDefaultAlgorithm());
        keys.init(own, "secret".toCharArray());
        KeyStore trust = KeyStore.getInstance("PKCS12");
        trust.load(null);
        trust.setCertificateEntry("own", own.getCertificate(own.aliases().nextElement()));
        var trusted = TrustManagerFactory.getInstance(TrustManagerFactory.getDefaultAlgorithm());
        trusted.init(trust);
        SSLContext context = SSLContext.getInstance("TLS");
        context.init(keys.getKeyManagers(), trusted.getTrustManagers(), null);
        try (var server = (SSLServerSocket) context.getServerSocketFactory().createServerSocket(0, 1, InetAddress.getLoopbackAddress())) {
            var thread = new Thread(() -> {
                try (var socket = server.accept()) {
                    socket.getOutputStream().write('x');
                } catch (Exception error) {
                    error.printStackTrace();
                }
            });
            thread.start();
            try (var socket = (SSLSocket) context.getSocketFactory().createSocket(InetAddress.getLoopbackAddress(), server.getLocalPort())) {
                int got = socket.getInputStream().read();
                thread.join();
                return socket.getSession().getProtocol() + " " + (char) got;
            }
        }
    }
}

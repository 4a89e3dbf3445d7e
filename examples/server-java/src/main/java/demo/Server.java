package demo;

import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.io.InputStream;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.util.Properties;

/** Greets over HTTP; with `--once` it asks itself one time and ends. */
public class Server {
    public static void main(String[] words) throws Exception {
        boolean once = words.length == 1 && words[0].equals("--once");
        HttpServer server = HttpServer.create(new InetSocketAddress(once ? 0 : 8080), 0);
        server.createContext("/hello/", exchange -> {
            byte[] body = greet(exchange.getRequestURI().getPath().substring("/hello/".length())).getBytes("UTF-8");
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.start();
        int port = server.getAddress().getPort();
        if (!once) {
            System.out.println("listening on port " + port);
            return;
        }
        var request = HttpRequest.newBuilder(URI.create("http://127.0.0.1:" + port + "/hello/Ada")).build();
        var answer = HttpClient.newHttpClient().send(request, BodyHandlers.ofString());
        System.out.println(answer.statusCode() + " " + answer.body());
        System.exit(0);
    }

    static String greet(String name) throws IOException {
        Properties words = new Properties();
        try (InputStream file = Server.class.getResourceAsStream("/greeting.properties")) {
            words.load(file);
        }
        return words.getProperty("greeting") + ", " + name + "!";
    }
}

package demo;

import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Properties;

/** Prints a property of the configuration. */
public class Main {
    public static void main(String[] words) throws Exception {
        Properties properties = new Properties();
        try (var reader = Files.newBufferedReader(Path.of("/etc/demo/app.properties"))) {
            properties.load(reader);
        }
        System.out.println(properties.getProperty(words[0], "?"));
    }
}

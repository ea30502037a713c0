import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpClient.Version;
import java.net.http.HttpRequest;
import java.net.http.HttpResponse.BodyHandlers;
import java.security.cert.X509Certificate;
import java.util.Set;
import java.util.concurrent.ConcurrentHashMap;
import java.util.concurrent.atomic.AtomicInteger;
import javax.net.ssl.SSLContext;
import javax.net.ssl.TrustManager;
import javax.net.ssl.X509ExtendedTrustManager;

/** Java's HttpClient: HTTP/2 with ten streams on one connection, and HTTP/1.1. ADDRESS SECONDS */
class Client {
    /** The certificate is one of a minute ago. */
    static class Anybody extends X509ExtendedTrustManager {
        public void checkClientTrusted(X509Certificate[] c, String t) {}
        public void checkServerTrusted(X509Certificate[] c, String t) {}
        public void checkClientTrusted(X509Certificate[] c, String t, java.net.Socket s) {}
        public void checkServerTrusted(X509Certificate[] c, String t, java.net.Socket s) {}
        public void checkClientTrusted(X509Certificate[] c, String t, javax.net.ssl.SSLEngine e) {}
        public void checkServerTrusted(X509Certificate[] c, String t, javax.net.ssl.SSLEngine e) {}
        public X509Certificate[] getAcceptedIssuers() { return new X509Certificate[0]; }
    }

    public static void main(String[] args) throws Exception {
        var end = System.nanoTime() + Long.parseLong(args[1]) * 1_000_000_000L;
        var one = new Thread(() -> run(args[0], Version.HTTP_1_1, 1, end));
        one.start();
        run(args[0], Version.HTTP_2, 10, end);
        one.join();
    }

    static void run(String address, Version version, int streams, long end) {
        try {
            var name = "Java " + Runtime.version().feature() + " HttpClient, HTTP/" + (version == Version.HTTP_2 ? "2" : "1.1");
            var tls = SSLContext.getInstance("TLS");
            tls.init(null, new TrustManager[] {new Anybody()}, null);
            var client = HttpClient.newBuilder().version(version).sslContext(tls).build();
            var request = HttpRequest.newBuilder(URI.create("https://" + address + "/who")).build();
            Set<String> pids = ConcurrentHashMap.newKeySet(), ports = ConcurrentHashMap.newKeySet();
            AtomicInteger answered = new AtomicInteger(), failed = new AtomicInteger();
            Runnable ask = () -> {
                try {
                    var words = client.send(request, BodyHandlers.ofString()).body().trim().split(" ");
                    pids.add(words[0]);
                    ports.add(words[1]);
                    answered.incrementAndGet();
                    Thread.sleep(5);
                } catch (Exception error) {
                    failed.incrementAndGet();
                    System.err.println(name + ": " + error);
                }
            };
            ask.run(); // the others find its connection
            var threads = new Thread[streams];
            for (int i = 0; i < streams; i++) {
                threads[i] = new Thread(() -> { while (System.nanoTime() < end) ask.run(); });
                threads[i].start();
            }
            for (var thread : threads) thread.join();
            System.out.printf("%s|%d|%d|%d|%d%n", name, answered.get(), failed.get(), ports.size(), pids.size());
        } catch (Exception error) {
            throw new RuntimeException(error);
        }
    }
}

// A server in Java on the channel that it inherits as fd 0 (System.inheritedChannel()). It stops on SIGTERM.
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.OutputStream;
import java.nio.channels.Channels;
import java.nio.channels.ServerSocketChannel;
import java.nio.channels.SocketChannel;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.TimeUnit;

public class Web {
    static volatile boolean stopping;

    public static void main(String[] arguments) throws Exception {
        ServerSocketChannel channel = (ServerSocketChannel) System.inheritedChannel();
        ExecutorService connections = Executors.newCachedThreadPool();
        Runtime.getRuntime().addShutdownHook(new Thread(() -> {
            stopping = true;
            connections.shutdown();
            try {
                connections.awaitTermination(20, TimeUnit.SECONDS);
            } catch (InterruptedException e) {
                Thread.currentThread().interrupt();
            }
        }));
        // Another process accepts from the same queue: no wait in accept(2) that nobody could end.
        channel.configureBlocking(false);
        while (!stopping) {
            SocketChannel connection = channel.accept();
            if (connection == null) {
                Thread.sleep(2);
            } else {
                connections.execute(() -> serve(connection));
            }
        }
    }

    static void serve(SocketChannel connection) {
        byte[] body = (ProcessHandle.current().pid() + "\n").getBytes();
        try (connection) {
            BufferedReader in = new BufferedReader(new InputStreamReader(Channels.newInputStream(connection)));
            OutputStream out = Channels.newOutputStream(connection);
            boolean last = false;
            while (!last && in.readLine() != null) {
                for (String line = in.readLine(); line != null && !line.isEmpty();) {
                    line = in.readLine();
                }
                last = stopping;
                String head = "HTTP/1.1 200 OK\r\nContent-Length: " + body.length + (last ? "\r\nConnection: close" : "");
                out.write((head + "\r\n\r\n" + new String(body)).getBytes());
            }
        } catch (java.io.IOException e) {
            // The client has gone.
        }
    }
}

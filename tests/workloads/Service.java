// A JVM service with state: a counter, threads, a large array with a checksum.
import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.util.concurrent.atomic.AtomicLong;

public class Service {
    public static void main(String[] args) throws Exception {
        byte[] data = new byte[32 << 20];
        for (int i = 0; i < data.length; i++) data[i] = (byte) (i * 31 ^ i >>> 7);
        AtomicLong requests = new AtomicLong(), beats = new AtomicLong();
        Thread beat = new Thread(() -> {
            while (true) {
                beats.incrementAndGet();
                try { Thread.sleep(10); } catch (InterruptedException e) { return; }
            }
        });
        beat.setDaemon(true);
        beat.start();
        HttpServer server = HttpServer.create(
            new InetSocketAddress("127.0.0.1", Integer.parseInt(args[0])), 0);
        server.createContext("/", exchange -> {
            String answer = String.valueOf(requests.incrementAndGet());
            if (exchange.getRequestURI().getPath().equals("/sum")) {
                long sum = 0;
                for (byte b : data) sum = sum * 31 + b;
                answer = String.valueOf(sum);
            }
            byte[] body = answer.getBytes();
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.start();
        System.out.println("ready");
    }
}

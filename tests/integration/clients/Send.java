import java.nio.file.*;
import java.util.*;
import org.apache.kafka.clients.producer.*;
import org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.kafka.common.serialization.ByteArraySerializer;

/** Sends what a plan says with the Java client: BROKERS PLAN. */
public final class Send {
    private static byte[] bytes(String text) {
        return text.equals("-") ? null : Base64.getDecoder().decode(text);
    }

    public static void main(String[] given) throws Exception {
        Map<String, List<String[]>> groups = new LinkedHashMap<>();
        for (String line : Files.readAllLines(Path.of(given[1]))) {
            String[] part = line.split("\t", -1);
            groups.computeIfAbsent(part[0] + "\t" + part[1], k -> new ArrayList<>()).add(part);
        }
        for (Map.Entry<String, List<String[]>> group : groups.entrySet()) {
            String codec = group.getKey().split("\t")[0], mode = group.getKey().split("\t")[1];
            boolean inTransaction = mode.equals("committed") || mode.equals("aborted");
            Properties p = new Properties();
            p.put("bootstrap.servers", given[0]);
            p.put("compression.type", codec);
            p.put("linger.ms", "20");
            p.put("acks", "all");
            p.put("enable.idempotence", Boolean.toString(!mode.equals("plain")));
            if (inTransaction) p.put("transactional.id", "java-" + codec + "-" + mode);
            try (Producer<byte[], byte[]> producer =
                     new KafkaProducer<>(p, new ByteArraySerializer(), new ByteArraySerializer())) {
                if (inTransaction) {
                    producer.initTransactions();
                    producer.beginTransaction();
                }
                for (String[] x : group.getValue()) {
                    RecordHeaders headers = new RecordHeaders();
                    if (x[5].equals("1")) headers.add("origin", new byte[] {(byte) 0xff, 0, 1}).add("none", null);
                    producer.send(new ProducerRecord<>(x[2], null, Long.parseLong(x[6]), bytes(x[3]), bytes(x[4]), headers));
                }
                producer.flush();
                if (mode.equals("committed")) producer.commitTransaction();
                if (mode.equals("aborted")) producer.abortTransaction();
            }
        }
    }
}

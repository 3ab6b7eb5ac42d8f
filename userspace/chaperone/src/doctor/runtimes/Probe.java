import java.net.URL;
import javax.net.ssl.HttpsURLConnection;
import javax.net.ssl.SSLException;

public class Probe {
    public static void main(String[] words) {
        try {
            HttpsURLConnection link = (HttpsURLConnection) new URL("https://" + words[0] + "/").openConnection();
            link.setConnectTimeout(20000);
            link.setReadTimeout(20000);
            link.getResponseCode();
            System.out.println("verified https ");
        } catch (SSLException error) {
            System.out.println("untrusted https " + error.getMessage());
        } catch (Exception error) {
            System.out.println("failed https " + error);
        }
    }
}

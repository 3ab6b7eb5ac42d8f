# A JDK that isn't Debian's has a trust store of its own. Arguments: the client's folder, a bucket.
set -e
keytool -importcert -noprompt -alias ca -file "$NODE_EXTRA_CA_CERTS" -keystore trust.p12 -storepass changeit 2>/dev/null
java -Djavax.net.ssl.trustStore=trust.p12 -Djavax.net.ssl.trustStorePassword=changeit -cp "$1/classes:$1/jars/*" Work "$2"

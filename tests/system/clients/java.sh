# A JDK that isn't Debian's has a trust store of its own. Arguments: the client's folder, and the client's own.
set -e
folder=$1
shift
rm -f trust.p12
keytool -importcert -noprompt -alias ca -file "$NODE_EXTRA_CA_CERTS" -keystore trust.p12 -storepass changeit 2>/dev/null
java -Djavax.net.ssl.trustStore=trust.p12 -Djavax.net.ssl.trustStorePassword=changeit -cp "$folder/classes:$folder/jars/*" Work "$@"

#!/bin/sh
# Makes the certificates of this directory, which rcgen cannot: weak keys, old digests, X.509 version 1, odd curves. Needs
# openssl 3. Only certificates are kept; their keys are thrown away. Names say what is wrong with each.
set -eu
out=$(cd "$(dirname "$0")" && pwd)
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
cd "$dir"
days="-days 20000"
ext() { printf 'subjectAltName=DNS:api.internal\n' >"$1"; }
san="$dir/san"; ext "$san"

# ca NAME KEY-OPTIONS...: a CA of its own.
ca() {
    name=$1; shift
    openssl genpkey "$@" -out "$name.key" 2>/dev/null
    openssl req -x509 -new -key "$name.key" -sha256 -subj "/CN=CA $name" $days \
        -addext basicConstraints=critical,CA:TRUE -out "$out/$name.pem"
}
# leaf NAME CA DIGEST EXTENSIONS-FILE KEY-OPTIONS...
leaf() {
    name=$1 issuer=$2 digest=$3 extensions=$4; shift 4
    openssl genpkey "$@" -out "$name.key" 2>/dev/null
    openssl req -new -key "$name.key" -sha256 -subj "/CN=$name" -out "$name.csr"
    openssl x509 -req -in "$name.csr" -CA "$out/$issuer.pem" -CAkey "$issuer.key" "-$digest" $days \
        ${extensions:+-extfile "$extensions"} -set_serial 7 -out "$out/$name.pem" 2>/dev/null
}
rsa() { echo "-algorithm RSA -pkeyopt rsa_keygen_bits:$1"; }
ec() { echo "-algorithm EC -pkeyopt ec_paramgen_curve:$1"; }
ca good $(rsa 2048)
ca small-ca $(rsa 1024)
leaf by-small-ca small-ca sha256 "$san" $(ec P-256)
leaf rsa-1024 good sha256 "$san" $(rsa 1024)
leaf secp256k1 good sha256 "$san" $(ec secp256k1)
leaf ed448 good sha256 "$san" -algorithm ED448
leaf sha1 good sha1 "$san" $(ec P-256)
leaf md5 good md5 "$san" $(ec P-256)
leaf version-1 good sha256 "" $(ec P-256)

# Streams through our kubectl and through the machine's (Debian's is a 1.20 and speaks SPDY; one since 1.31 speaks WebSockets): each() runs a check with both.
REAL=${KUBECTL_REAL:-$(PATH=${PATH#*:} command -v kubectl)}; "$REAL" version --client >/dev/null && each() { "$1" kubectl && "$1" "$REAL"; }
kubectl run box --image=alpine --command -- sh -c 'trap exit TERM; while :; do sleep 1; done' && kubectl run red --image=redis
retry 60 sh -c '[ "$(kubectl get pods box red --no-headers | grep -c 1/1)" = 2 ]'
head -c 30000000 /dev/urandom >$TMP/big
code() { "$1" exec box -- sh -c 'echo out; echo err >&2; exit 7' >$TMP/out 2>$TMP/err; [ $? = 7 ] && grep -qx out $TMP/out && grep -qx err $TMP/err; }; each code
sent() { [ "$("$1" exec -i box -- md5sum <$TMP/big)" = "$(md5sum <$TMP/big)" ]; }; each sent
both() { "$1" exec -i box -- cat <$TMP/big | cmp - $TMP/big; }; each both
copied() { "$1" cp $TMP/big box:/tmp/big && rm -f $TMP/back && "$1" cp box:/tmp/big $TMP/back && cmp $TMP/big $TMP/back; }; each copied
fed() { local out; out=$(echo fed | "$1" run "fed$RANDOM" -i --rm --restart=Never --image=alpine --command -- sh -c 'sleep 2; cat' 2>/dev/null) && grep -qx fed <<<"$out"; }; each fed
refused() { local out; out=$("$1" exec box -- no-such-program 2>&1; "$1" exec box -c none -- true 2>&1); grep -qF 'executable file not found in $PATH' <<<"$out" && grep -qxF 'Error from server (BadRequest): container none is not valid for pod box' <<<"$out"; }; each refused
# Sixteen connections at once through one port-forward; each says its last word before it hears the answer.
ping() { local s; exec {s}<>/dev/tcp/127.0.0.1/16379 || return 1; printf 'PING\r\nQUIT\r\n' >&$s; timeout 10 cat <&$s | grep -q PONG; }
pings() { local all=() p; for n in $(seq 16); do (ping) & all+=($!); done; for p in "${all[@]}"; do wait "$p" || return 1; done; }
# The file is emptied before: what the last one said is in it.
forwarded() { : >$TMP/forward; "$1" port-forward pod/red 16379:6379 >$TMP/forward 2>&1 & local f=$! r; retry 10 grep -q 127.0.0.1:16379 $TMP/forward; pings; r=$?; kill $f; wait $f; return $r; }; each forwarded
# What runs in the cluster, through the API server.
kubectl run web --image=alpine --port=8080 --labels=app=web --command -- sh -c 'mkdir /www; echo "<a href=/x>x</a>" >/www/index.html; exec httpd -f -p 8080 -h /www' && kubectl expose pod web --port=80 --target-port=8080
P=/api/v1/namespaces/default; retry 30 sh -c "kubectl get --raw $P/services/web:80/proxy/ | grep -q x"
[ "$(kubectl get --raw $P/services/web:80/proxy/)" = "<a href=$P/services/web:80/proxy/x>x</a>" ] && [ "$("$REAL" get --raw $P/pods/web/proxy/)" = "<a href=$P/pods/web/proxy/x>x</a>" ]
kubectl delete pod/box pod/red pod/web service/web --grace-period=1 && retry 60 gone pods box red web

# Reset leaves the host as it was found, though pods run.
kubectl get pods -A -o jsonpath='{range .items[*]}{.metadata.uid}{"\n"}{end}' >$TMP/uids && [ -s $TMP/uids ]
coracle reset --data-dir $DATA
host_state >$TMP/host.after
diff $TMP/host.before $TMP/host.after
[ ! -e $DATA ]

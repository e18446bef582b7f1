# Reset leaves the host as it was found, though pods run.
coracle reset --data-dir $DATA
host_state >$TMP/host.after
diff $TMP/host.before $TMP/host.after
[ ! -e $DATA ]

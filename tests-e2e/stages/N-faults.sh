# In a lab: a cable is pulled, the power goes, and all is well again afterwards.
pods_on() { kubectl get pods -o jsonpath="{range .items[?(@.spec.nodeName==\"$1\")]}{.metadata.name} {.status.containerStatuses[0].containerID}{\"\n\"}{end}" | sort; }
is_ready() { kubectl get node "$1" --no-headers | grep -qE " Ready( |$)"; }
not_ready() { kubectl get node "$1" --no-headers | grep -q ' NotReady'; }
retry 60 sh -c '! kubectl get pods --no-headers | grep -q Terminating'; pods_on node2 >$TMP/before && [ -s $TMP/before ]
# Cut: node2 goes NotReady; its pods run on and are the same ones when the cable is back.
lab cut node2 && retry 90 not_ready node2
! curl -sS -m2 -o /dev/null http://192.168.0.12:30001/ 2>/dev/null
lab heal && retry 60 is_ready node2
pods_on node2 >$TMP/after; diff $TMP/before $TMP/after
# Many packets lost: slow, not broken.
lab slow node2 --delay 10ms --loss 5% && retry 30 curl -fsS -m9 -o /dev/null http://192.168.0.12:30001/index.html && lab heal
# Power: node2 comes back by itself, its pods with it.
lab kill node2 && ! lab shell node2 -- true && lab start node2
retry 60 is_ready node2 && retry 90 sh -c '! kubectl get pods --no-headers | grep -vqE "1/1 +Running"'
retry 30 curl -fsS -m5 -o /dev/null http://192.168.0.12:30001/index.html

# The dashboard in a browser, with its live graph.
kubectl scale deploy/worker --replicas=1 && retry 60 count 1 pods -l app=worker && retry 20 curl -fsS -o /dev/null "$WEB/index.html"
browser --virtual-time-budget=15000 --dump-dom "$WEB/index.html" >$TMP/page.html
grep -q 'DockerCoin Miner WebUI' $TMP/page.html && grep -q '<svg' $TMP/page.html && grep -q '<path' $TMP/page.html
grep -Eq '~[0-9.]+ hashes/second' $TMP/page.html
# For a picture the page needs half a minute of real time: Chromium takes it when everything is loaded, and one image takes that long.
(sleep 30; printf 'HTTP/1.0 404 Not Found\r\nContent-Length: 0\r\n\r\n') | busybox nc -l -p 8099 >/dev/null & SLOW=$!
echo "<body style='margin:0'><iframe src='$WEB/index.html' style='border:0;width:860px;height:540px'></iframe><img src='http://127.0.0.1:8099/slow.png' style='display:none'>" >$TMP/frame.html
browser --window-size=860,540 --hide-scrollbars --screenshot=$ARTIFACTS/dockercoins.png "file://$TMP/frame.html"; wait $SLOW; [ "$(stat -c %s $ARTIFACTS/dockercoins.png)" -gt 8000 ]

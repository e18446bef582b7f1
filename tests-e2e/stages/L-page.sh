# The dashboard in a browser, with its live graph.
retry 20 curl -fsS -o /dev/null "$WEB/index.html"
browser --virtual-time-budget=15000 --dump-dom "$WEB/index.html" >$TMP/page.html
grep -q 'DockerCoin Miner WebUI' $TMP/page.html && grep -q '<svg' $TMP/page.html && grep -q '<path' $TMP/page.html
grep -Eq '[0-9.]+ hashes/second' $TMP/page.html
browser --virtual-time-budget=25000 --window-size=900,700 --screenshot=$ARTIFACTS/dockercoins.png "$WEB/index.html" && [ "$(stat -c %s $ARTIFACTS/dockercoins.png)" -gt 5000 ]

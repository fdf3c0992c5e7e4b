"""What a stranger's file may say to become a link, a picture or markup."""

HOSTILE = (
    "<img src=x onerror=alert(1)> ![i](http://evil.example/i.png) [c](javascript:alert(1)) <a href='http://evil.example'>a</a> :red[x] :material/delete: "
    "http://evil.example/auto https://evil.example www.evil.example me@evil.example mailto:me@evil.example :smile: $x$ **b** `y` &lt; {0.__class__}"
)

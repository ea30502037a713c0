# The application of puma and unicorn.
run ->(_) { body = "#{Process.pid}\n"; [200, { "content-type" => "text/plain", "content-length" => body.bytesize.to_s }, [body]] }

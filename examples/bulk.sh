#!/bin/sh
# A CSV into Parquet, stopped half way and gone on with, then the same through a pipe. Needs `tandem` on the path.
set -eu
folder=$(mktemp -d)
trap 'rm -r "$folder"' EXIT
cd "$folder"

echo 'id,question' > in.csv
number=0
while [ "$number" -lt 6000 ]; do
    echo "$number,\"How warm is the sea, on day $number, \"\"roughly\"\"?\"" >> in.csv
    number=$((number + 1))
done

# kill -9 as soon as the first window of 2,048 texts is saved.
tandem embed in.csv --column question -o out.parquet &
until [ "$(cat out.parquet.tandem-job/journal 2> /dev/null | wc -l)" -ge 2 ]; do
    sleep 0.1
    kill -0 $! 2> /dev/null || break
done
kill -9 $! 2> /dev/null || true
wait || true

# The same command goes on. Once more, and the output is safe.
[ -e out.parquet ] || tandem embed in.csv --column question -o out.parquet
tandem embed in.csv --column question -o out.parquet || echo "refused, as it should be"

# Lines of JSON through a pipe, as they are embedded.
head -4 in.csv | tandem embed - --input-format csv --column question -o - --quiet | cut -c 1-120

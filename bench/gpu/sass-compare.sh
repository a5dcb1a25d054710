#!/usr/bin/env bash
# Compares the machine code of two builds of the CUDA plugin (or of two object files): a Markdown row per kernel with
# instructions, registers, stack bytes, spilled bytes and static shared bytes, old/new, and whether the code is the same.
# Exits with 1 if a kernel has more than 1% more instructions, or more stack. Needs cuobjdump; no GPU.
#   bench/gpu/sass-compare.sh OLD.so NEW.so
set -euo pipefail
[ $# -eq 2 ] || { sed -n 's/^#   //p' "$0" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# A line per kernel: name, instructions, registers, stack, local and shared bytes, hash of the code.
kernels() {
    cuobjdump -sass "$1" | awk '
        function flush_code() { if (name != "") print name, n, file; close(file) }
        /Function : / { flush_code(); name = $3; n = 0; file = "'"$work"'/code." ++count; printf "" > file; next }
        /^[ \t]+\/\*[0-9a-f]+\*\/[ \t]/ { ++n; sub(/^[ \t]+\/\*[0-9a-f]+\*\//, ""); print > file }
        END { flush_code() }' | while read -r name n file; do
        echo "$name $n $(md5sum <"$file" | cut -c1-8)"
        rm -f "$file"
    done | sort >"$work/code"
    cuobjdump -res-usage "$1" 2>/dev/null | awk '
        / Function / { name = $2; sub(/:$/, "", name); next }
        /REG:/ {
            for (i = 1; i <= NF; ++i) { split($i, part, ":"); value[part[1]] = part[2] }
            print name, value["REG"], value["STACK"], value["LOCAL"], value["SHARED"]
        }' | sort >"$work/usage"
    # Without parameters and namespaces, which a reorganization may change.
    join "$work/code" "$work/usage" | c++filt -p | sed -E 's/\(lk::[A-Za-z:]+\)//g; s/\(anonymous namespace\):://g; s/lk::cuda:://g; s/, +/,/g; s/^void //' |
        awk '{ name = $1; for (i = 2; i <= NF - 6; ++i) name = name "_" $i; print name, $(NF-5), $(NF-3), $(NF-2), $(NF-1), $NF, $(NF-4) }' | sort
}

kernels "$1" >"$work/old"
kernels "$2" >"$work/new"
echo "| kernel | instructions | change | registers | stack | local | shared | code |"
echo "|---|---:|---:|---:|---:|---:|---:|---|"
join -a 1 -a 2 -e - -o 0,1.2,2.2,1.3,2.3,1.4,2.4,1.5,2.5,1.6,2.6,1.7,2.7 "$work/old" "$work/new" | awk '
    $2 == "-" || $3 == "-" { printf "| %s | %s / %s | | %s / %s | %s / %s | %s / %s | %s / %s | %s |\n", $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $2 == "-" ? "new" : "gone"; next }
    {
        change = 100 * ($3 - $2) / $2
        bad += change > 1 || $7 > $6
        same += $12 == $13
        ++total
        printf "| %s | %d / %d | %+.2f%% | %d / %d | %d / %d | %d / %d | %d / %d | %s |\n", $1, $2, $3, change, $4, $5, $6, $7, $8, $9, $10, $11, $12 == $13 ? "same" : "differs"
    }
    END { printf "\n%d kernels in both, %d with the same code, %d beyond the limits\n", total, same, bad; exit bad > 0 }'

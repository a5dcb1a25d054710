#!/usr/bin/env bash
# Uses the packages as a program of someone else does: a new project outside the repository, a local feed, the lines of the README.
#   tests/consumer/run.sh [artifacts/packages]
# Prints "ok NAME" or "FAILED NAME" for each check. Needs the .NET SDK, and a C compiler for the program compiled ahead of time.
set -uo pipefail
root=$(cd "$(dirname "$0")/../.." && pwd)
feed=$(cd "${1:-$root/artifacts/packages}" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
export DOTNET_NOLOGO=1 DOTNET_CLI_TELEMETRY_OPTOUT=1 DOTNET_CLI_UI_LANGUAGE=en
version=$(basename "$feed"/LlamaKivi.Native.*.nupkg .nupkg)
version=${version#LlamaKivi.Native.}
rid=linux-$([ "$(uname -m)" = aarch64 ] && echo arm64 || echo x64)
failed=0

# The packages under test come from the feed alone: their cache is new, and what others they need may be in the user's.
export NUGET_FALLBACK_PACKAGES=${NUGET_PACKAGES:-$HOME/.nuget/packages}
export NUGET_PACKAGES=$work/cache
mkdir "$NUGET_PACKAGES"
cat > "$work/nuget.config" <<END
<configuration><packageSources><add key="packages under test" value="$feed" /></packageSources></configuration>
END

# check NAME COMMAND...: what the command prints is shown only if it fails.
check() {
    local name=$1 start=$SECONDS
    shift
    if "$@" > "$work/log" 2>&1; then
        echo "ok $name ($((SECONDS - start)) s)"
    else
        cat "$work/log"
        echo "FAILED $name"
        failed=1
    fi
}

# prints_text COMMAND...: the command succeeds and continues the prompt.
prints_text() {
    "$@" > "$work/text" && cat "$work/text" && [ "$(wc -w < "$work/text")" -gt 10 ]
}

new_project() {
    cd "$work" && dotnet new console -o app && cd app &&
        sed -n '/^```csharp$/,/^```$/p' "$root/README.md" | sed '/^```/d' > Program.cs &&
        [ "$(wc -l < Program.cs)" -ge 10 ] &&
        dotnet add package LlamaKivi --version "$version" && dotnet add package LlamaKivi.DemoModel --version "$version"
}

names_the_missing_package() {
    cd "$work/app" && dotnet build -c Release && cd bin/Release/net10.0 || return
    ./app 2> "$work/error"
    [ $? -ne 0 ] && cat "$work/error" && grep -q 'dotnet add package LlamaKivi.Backend.Cpu' "$work/error"
}

runs_the_readme() {
    cd "$work/app" && dotnet add package LlamaKivi.Backend.Cpu --version "$version" && dotnet build -c Release &&
        cd bin/Release/net10.0 && prints_text ./app
}

# The README's path is relative: the other folder has the model where the program looks for it.
runs_from_another_folder_through_a_link() {
    mkdir "$work/elsewhere" && ln -s "$work/app/bin/Release/net10.0/models" "$work/elsewhere/models" &&
        ln -s "$work/app/bin/Release/net10.0/app" "$work/elsewhere/link" && cd "$work/elsewhere" && prints_text ./link
}

# publish NAME PROPERTY...: publishes the program, runs it and prints its size. Warnings of the trimmer are errors.
publish() {
    local name=$1
    shift
    cd "$work/app" && dotnet publish -c Release -r "$rid" -o "$work/$name" -warnaserror "$@" && cd "$work/$name" && prints_text ./app
}

# The JSON of a schema's type: reflection that trimming breaks would show.
publishes_structured_output_ahead_of_time() {
    cd "$work/app" && cp "$root/samples/StructuredOutput/"*.cs . && dotnet publish -c Release -r "$rid" -o "$work/ahead" -warnaserror -p:PublishAot=true -p:InvariantGlobalization=true &&
        cd "$work/ahead" && ./app models/kivi-demo-llama-37m-q4_k_m.gguf | tee "$work/text" && [ "$(grep -cE '^(name|year|topics): ' "$work/text")" -eq 3 ]
}

tool() {
    "$work/tools/llama-kivi" "$@"
}

installs_the_tool() {
    cd "$work" && dotnet tool install LlamaKivi.Cli --version "$version" --tool-path "$work/tools" &&
        tool doctor | tee "$work/text" && grep -q '^CPU ' "$work/text"
}

# The demo model is in the package cache, where its package was restored.
tool_runs() {
    cd / && prints_text tool run -p 'The garbage collector' -n 16 -ngl 0
}

tool_chats() {
    cd / && printf 'Hello\n/stats\n/exit\n' | tool chat -n 8 -ngl 0 > "$work/text" && cat "$work/text" && [ -s "$work/text" ]
}

check "new project" new_project
check "a missing backend names its package" names_the_missing_package
check "the README's program" runs_the_readme
check "from another folder, through a link" runs_from_another_folder_through_a_link
check "self-contained, single file" publish single --self-contained -p:PublishSingleFile=true
check "self-contained, trimmed" publish trimmed --self-contained -p:PublishTrimmed=true
check "compiled ahead of time" publishes_structured_output_ahead_of_time
check "the tool, installed" installs_the_tool
check "the tool's run" tool_runs
check "the tool's chat" tool_chats
du -sm --apparent-size "$work"/{single,trimmed,ahead} 2>/dev/null | sed "s|$work/|size of |"
exit "$failed"

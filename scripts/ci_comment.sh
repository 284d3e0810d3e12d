#!/usr/bin/env bash
# Puts a gate's Markdown under a pull request: one comment, which later gates of it replace.
#
# usage: scripts/ci_comment.sh OWNER/REPOSITORY NUMBER FILE
#
# Needs `gh` and GH_TOKEN with the right to write to pull requests.
set -euo pipefail
repository=${1:?usage: ci_comment.sh OWNER/REPOSITORY NUMBER FILE}
number=${2:?usage: ci_comment.sh OWNER/REPOSITORY NUMBER FILE}
file=${3:?usage: ci_comment.sh OWNER/REPOSITORY NUMBER FILE}
case $number in
  '' | *[!0-9]*)
    echo "error: '$number' is no number of a pull request" >&2
    exit 2
    ;;
esac

marker='<!-- actbench gate -->'
body=$(mktemp)
trap 'rm -f "$body"' EXIT
# GitHub takes 65,536 characters; what is longer is in the job's artifact.
{
  echo "$marker"
  head -c 60000 "$file"
  if [ "$(wc -c <"$file")" -gt 60000 ]; then
    printf '\n\n</details>\n\nThe rest is in the artifact of this job.\n'
  fi
} >"$body"

comment=$(gh api --paginate "repos/$repository/issues/$number/comments" \
  --jq ".[] | select(.body | startswith(\"$marker\")) | .id" | head -n 1)
if [ -n "$comment" ]; then
  gh api --method PATCH "repos/$repository/issues/comments/$comment" -F "body=@$body" >/dev/null
else
  gh api --method POST "repos/$repository/issues/$number/comments" -F "body=@$body" >/dev/null
fi

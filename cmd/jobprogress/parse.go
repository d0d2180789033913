package main

import (
	"errors"
	"fmt"
	"io"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/alecthomas/kong"
)

// parse reads the settings of the command that args name. It returns nil when the help was all that was asked for. An
// error names all invalid at once.
func parse(args []string, getenv func(string) string, stdout, stderr io.Writer) (c command, err error) {
	var all commands
	var invalid []error
	files := make(map[string]string)
	exited := errors.New("exited")
	defer func() {
		if r := recover(); r != nil && r != exited {
			panic(r)
		}
	}()
	parser, err := kong.New(&all,
		kong.Name("jobprogress"),
		kong.Description("Shows the progress of jobs in a PostgreSQL table in the browser, as it happens."),
		kong.Writers(stdout, stderr),
		kong.Exit(func(int) { panic(exited) }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, FlagsLast: true}),
		kong.Resolvers(kong.ResolverFunc(func(_ *kong.Context, _ *kong.Path, flag *kong.Flag) (any, error) {
			for _, name := range flag.Envs {
				value := getenv(name)
				if file := getenv(secretFile(name)); file != "" && flag.Tag.Has(secretTag) {
					files[name] = file
					text, err := readSecret(name, file)
					switch {
					case value != "":
						err = fmt.Errorf("%s and %s contradict each other: choose one", name, secretFile(name))
					case err != nil:
						err = fmt.Errorf("%s: %w", secretFile(name), err)
					}
					if err != nil {
						invalid = append(invalid, err)
						text = unread
					}
					return text, nil
				}
				if value != "" { // compose files set what they leave empty
					return value, nil
				}
			}
			return nil, nil
		})),
		// What can't be read is remembered, not returned: kong would stop at the first.
		kong.TypeMapper(reflect.TypeFor[time.Duration](), collect(&invalid, "a duration like 30s", time.ParseDuration, time.Second)),
		kong.TypeMapper(reflect.TypeFor[int](), collect(&invalid, "a whole number", strconv.Atoi, 1)),
		kong.TypeMapper(reflect.TypeFor[float64](), collect(&invalid, "a number", func(s string) (float64, error) { return strconv.ParseFloat(s, 64) }, 1)),
		kong.TypeMapper(reflect.TypeFor[bool](), flagMapper{collect(&invalid, "true or false", strconv.ParseBool, false)}),
	)
	if err != nil {
		return nil, err
	}
	if err := kong.Visit(parser.Model, hideEnvironment); err != nil {
		return nil, err
	}
	parsed, err := parser.Parse(args)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", err, errUsage)
	}
	c = parsed.Selected().Target.Addr().Interface().(command)
	if serve, ok := c.(*serveCommand); ok {
		serve.secretFiles = files
	}
	invalid = append(invalid, c.validate()...)
	if len(invalid) > 0 {
		return nil, fmt.Errorf("settings:\n%w\n%w", errors.Join(invalid...), errUsage)
	}
	return c, nil
}

// secretTag marks settings that may stand in a file.
const secretTag = "secret"

// unknownVariables returns those of our own prefix that name no setting of any command: they are misspelt.
func unknownVariables(environ []string) (unknown []string, err error) {
	parser, err := kong.New(&commands{})
	if err != nil {
		return nil, err
	}
	known := make(map[string]bool)
	err = kong.Visit(parser.Model, func(node kong.Visitable, next kong.Next) error {
		if flag, ok := node.(*kong.Flag); ok {
			for _, name := range flag.Envs {
				known[name] = true
				known[secretFile(name)] = known[secretFile(name)] || flag.Tag.Has(secretTag)
			}
		}
		return next(nil)
	})
	for _, variable := range environ {
		name, _, _ := strings.Cut(variable, "=")
		if strings.HasPrefix(name, "JOBPROGRESS_") && !known[name] && !ofKubernetes.MatchString(name) {
			unknown = append(unknown, name)
		}
	}
	return unknown, err
}

// ofKubernetes are the variables that it sets for a service of the name jobprogress.
var ofKubernetes = regexp.MustCompile(`_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT(_\d+_(TCP|UDP)(_\w+)?)?$`)

// hideEnvironment keeps kong from reading the environment itself, so that run's getenv is the only one. The help goes
// on to name the variables.
func hideEnvironment(node kong.Visitable, next kong.Next) error {
	if flag, ok := node.(*kong.Flag); ok && len(flag.Envs) > 0 {
		names := "$" + strings.Join(flag.Envs, ", $")
		if flag.Tag.Has(secretTag) {
			names += ", or the file that $" + secretFile(flag.Envs[0]) + " names"
		}
		flag.Help += " (" + names + ")"
		flag.Tag.Envs = nil
	}
	return next(nil)
}

// flagMapper reads a bool, which may stand without a value.
type flagMapper struct{ withValue kong.MapperFunc }

func (flagMapper) IsBool() bool { return true }

func (m flagMapper) Decode(ctx *kong.DecodeContext, target reflect.Value) error {
	if ctx.Scan.Peek().Type == kong.FlagValueToken {
		return m.withValue(ctx, target)
	}
	target.SetBool(true)
	return nil
}

// collect makes a mapper that notes a value which read refuses, and goes on with stand-in, which no check minds.
func collect[T any](invalid *[]error, want string, read func(string) (T, error), standIn T) kong.MapperFunc {
	return func(ctx *kong.DecodeContext, target reflect.Value) error {
		token, err := ctx.Scan.PopValue("value")
		if err != nil {
			return err
		}
		text := fmt.Sprint(token.Value)
		value, err := read(text)
		if err != nil {
			var env string
			if flag := ctx.Value.Flag; flag != nil && len(flag.Envs) > 0 {
				env = flag.Envs[0]
			}
			*invalid = append(*invalid, invalidSetting(ctx.Value.Name, env, "%q is not %s", text, want))
			value = standIn
		}
		target.Set(reflect.ValueOf(value))
		return nil
	}
}
